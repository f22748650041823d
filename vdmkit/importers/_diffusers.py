# SPDX-License-Identifier: Apache-2.0
"""Folders of huggingface/diffusers with DDPM's network (Ho et al. 2020, arXiv 2006.11239)."""

from typing import Any

from vdmkit.importers._diffusers_names import diffusers_network, with_diffusers_arrays
from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers._published import AS_IMAGE, FLIPS, discrete_model, published, with_kernel
from vdmkit.importers._settings import Settings
from vdmkit.importers._unet import with_unet
from vdmkit.importers.files._adam import Arrays
from vdmkit.model import DiffusionModel
from vdmkit.registry import register


@register("importer", "diffusers")
class DiffusersImporter(AbstractImporter):
    """UNet2DModel with DDPM's betas; a pipeline's folder, or that of its network."""

    def recipe(self, config: Config) -> dict[str, Any]:
        network = diffusers_network(_unet(config), config.get("scheduler") if "unet" in config else None)
        self.shape(config)
        scheduler, axis = config.get("scheduler", {}), network["noise_embedding"]
        prediction, weighting = _prediction(scheduler)
        kernel = _kernel(scheduler)
        tables = published(
            discrete_model(axis["table"], axis["steps"]) | {"prediction": {"name": prediction}, "network": network},
            {"weighting": weighting, "steps": axis["steps"] - 1},
            {"learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0},
            {"steps": 800_000, "batch_size": 128, "ema": 0.9999},
            augmentations=FLIPS,
            sampling=AS_IMAGE,
        )
        return with_kernel(tables, kernel, kernel)

    def shape(self, config: Config) -> tuple[int, int, int]:
        unet = _unet(config)
        settings = Settings(unet, "this configuration of UNet2DModel")
        size, channels = settings.of("sample_size", int), settings.of("in_channels", int, 3)
        settings.only("out_channels", channels, default=3)
        settings.ignore(*unet)
        settings.finish()
        return size, size, channels

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_unet(model, lambda network: with_diffusers_arrays(network, arrays))

    def configuration(self, found: Config, given: Config | None) -> Config | None:
        """Returns the given one, or that of the folder."""
        if given is not None:
            return given
        return found if "unet" in found else None

    def remarks(self, config: Config) -> list[str]:
        if "scheduler" not in config:
            return ["There is no configuration of a scheduler: DDPM's own betas, 1e-4 to 0.02, are assumed."]
        if config["scheduler"].get("clip_sample", True) or config["scheduler"].get("thresholding"):
            return ["The scheduler bounds x_hat in samples; here, this is not done."]
        return []


_PREDICTIONS = {"epsilon": ("eps", "simple"), "sample": ("x", "simple"), "v_prediction": ("v", "v")}
"""Prediction and weighting; those of x and eps are trained alike in train_unconditional.py of diffusers."""


def _prediction(scheduler: Config) -> tuple[str, str]:
    settings = Settings(scheduler, "this configuration of DDPMScheduler")
    found = _PREDICTIONS[settings.only("prediction_type", *_PREDICTIONS)]
    settings.ignore(*scheduler)
    settings.finish()
    return found


def _kernel(scheduler: Config) -> dict[str, Any]:
    """Returns the reverse kernel; DDPM's own is "fixed_large", and that of other schedulers of no concern."""
    settings = Settings(scheduler, "this configuration of DDPMScheduler")
    kinds = {f"fixed_{size}{log}": size for size in ("small", "large") for log in ("", "_log")}
    kind = kinds[settings.only("variance_type", *kinds)]
    settings.ignore(*scheduler)
    settings.finish()
    return {"name": "gaussian", "variance": kind}


def _unet(config: Config) -> Config:
    return config.get("unet", config)
