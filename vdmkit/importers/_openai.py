# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of openai/improved-diffusion (iDDPM, arXiv 2102.09672) and openai/guided-diffusion (ADM, 2105.05233)."""

from typing import Any

from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers._openai_names import openai_network, with_openai_arrays
from vdmkit.importers._published import AS_IMAGE, FLIPS, discrete_model, published, with_kernel
from vdmkit.importers._settings import Settings
from vdmkit.importers._unet import with_unet
from vdmkit.importers.files._adam import Arrays
from vdmkit.model import DiffusionModel
from vdmkit.registry import register

_IDDPM = ({"learning_rate": 1e-4, "warmup_steps": 0}, {"steps": 500_000, "batch_size": 128, "ema": 0.9999})
_ADM = ({"learning_rate": 3e-4, "warmup_steps": 0}, {"steps": 540_000, "batch_size": 2048, "ema": 0.9999})


@register("importer", "openai")
class OpenAiImporter(AbstractImporter):
    """The U-Nets of iDDPM and ADM, with learned variances or without."""

    def recipe(self, config: Config) -> dict[str, Any]:
        network = openai_network(config)
        is_learned, weighting = _of_diffusion(config)
        self.shape(config)
        axis, is_adm = network["noise_embedding"], network["name"] == "adm_unet"
        prediction = "x" if config["diffusion"].get("predict_xstart") else "eps_and_range" if is_learned else "eps"
        parts = {"prediction": {"name": prediction}, "network": network}
        tables = published(
            discrete_model(axis["table"], axis["steps"]) | parts,
            {"weighting": weighting, "steps": axis["steps"] - 1},
            *(_ADM if is_adm else _IDDPM),
            augmentations=FLIPS if is_adm else [],
            sampling=AS_IMAGE | {"steps": min(1000, axis["steps"])},
        )
        if is_learned:
            return _with_variances(tables)
        kernel = _kernel(config["diffusion"])
        return with_kernel(tables, kernel, kernel)

    def shape(self, config: Config) -> tuple[int, int, int]:
        unet, size = config["unet"], config["image_size"]
        settings = Settings(unet, "the U-Net of these arguments of OpenAI")
        channels = settings.of("in_channels", int, 3)
        settings.only("out_channels", channels * (2 if config["diffusion"].get("learn_sigma") else 1))
        settings.only("image_size", size)
        settings.ignore(*unet)
        settings.finish()
        return size, size, channels

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_unet(model, lambda network: with_openai_arrays(network, arrays, config))

    def remarks(self, config: Config) -> list[str]:
        of = "ADM's for ImageNet 64x64" if openai_network(config)["name"] == "adm_unet" else "iDDPM's for CIFAR-10"
        remarks = [f"OpenAI's files do not say the settings of training: those of the recipe are {of}."]
        if config["diffusion"].get("learn_sigma"):
            remarks.append(
                "vdmkit likelihood and vdmkit sample clip x_hat to [-1, 1], as the authors do; training and "
                "vdmkit evaluate do not."
            )
        else:
            remarks.append(
                "The authors clip x_hat to [-1, 1] in bounds and samples; with fixed variances, this is not done."
            )
        return remarks


def _with_variances(tables: dict[str, Any]) -> dict[str, Any]:
    """Returns the recipe with learned variances. The authors clip x_hat in what they measure, not in training."""
    clipped = {"name": "learned_range", "clip": True}
    tables["model"]["observation"] |= {"learned": True, "clip": True}
    measured = {"likelihood": {"estimator": {"name": "bound", "kernel": clipped}}}
    return with_kernel(tables, "learned_range", clipped) | measured


def _kernel(diffusion: Config) -> dict[str, Any]:
    """Returns the reverse kernel of the authors' fixed variance: beta, or with `sigma_small` that of q(z_s|z_t, x)."""
    settings = Settings(diffusion, "the diffusion of these arguments of OpenAI")
    kernel = {"name": "gaussian", "variance": "small" if settings.of("sigma_small", bool, False) else "large"}
    settings.ignore(*diffusion)
    settings.finish()
    return kernel


def _of_diffusion(config: Config) -> tuple[bool, str | dict[str, Any]]:
    """Returns whether variances are learned, and the weighting of the loss."""
    diffusion = config["diffusion"]
    settings = Settings(diffusion, "the diffusion of these arguments of OpenAI")
    learned = settings.of("learn_sigma", bool, False)
    is_kl = settings.of("use_kl", bool, False)
    share = 1e-3 if settings.of("rescale_learned_sigmas", bool, False) else 1 / max(settings.of("steps", int, 1000), 1)
    of_x = settings.of("predict_xstart", bool, False)
    if of_x and learned:
        settings.problem("predict_xstart: True, but False is expected with learn_sigma = True")
    settings.ignore(*diffusion)
    settings.finish()
    plain = {"name": "snr", "power": 0.0} if of_x else "simple"
    return learned, "elbo" if is_kl else {"name": "hybrid", "share": share} if learned else plain
