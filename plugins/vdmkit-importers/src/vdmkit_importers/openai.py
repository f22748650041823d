# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of openai/improved-diffusion (iDDPM, arXiv 2102.09672) and openai/guided-diffusion (ADM, 2105.05233)."""

from collections.abc import Mapping
from typing import Any

from vdmkit.importers import (
    AbstractImporter,
    Arrays,
    Config,
    Settings,
    WeightSource,
    discrete_model,
    fused_attention,
    published,
    sources_under,
    with_arrays,
    with_unet,
)
from vdmkit.model import DiffusionModel
from vdmkit.networks import UNet
from vdmkit.networks.unet import Block
from vdmkit.registry import register

_LAYERS = {
    "norm1": WeightSource("in_layers.0"),
    "conv1": WeightSource("in_layers.2"),
    "embed": WeightSource("emb_layers.1"),
    "norm2": WeightSource("out_layers.0"),
    "conv2": WeightSource("out_layers.3"),
    "shortcut": WeightSource("skip_connection", trailing=(1, 1)),
}
"""The layers of a block of OpenAI."""

_OF_GUIDED = ("num_head_channels", "resblock_updown", "use_new_attention_order", "image_size")
"""Arguments of UNetModel that only guided-diffusion has."""

_IDDPM = ({"learning_rate": 1e-4, "warmup_steps": 0}, {"steps": 500_000, "batch_size": 128, "ema": 0.9999})
_ADM = ({"learning_rate": 3e-4, "warmup_steps": 0}, {"steps": 540_000, "batch_size": 2048, "ema": 0.9999})
_UNET = "the U-Net of these arguments of OpenAI"
_DIFFUSION = "the diffusion of these arguments of OpenAI"


@register("importer", "openai")
class OpenAiImporter(AbstractImporter):
    """The U-Nets of iDDPM and ADM, with learned variances or without."""

    def recipe(self, config: Config) -> dict[str, Any]:
        network = openai_network(config)
        with Settings(config["diffusion"], _DIFFUSION, partial=True) as settings:
            is_learned = settings.of("learn_sigma", bool, False)
            is_kl = settings.of("use_kl", bool, False)
            is_rescaled = settings.of("rescale_learned_sigmas", bool, False)
            share = 1e-3 if is_rescaled else 1 / max(settings.of("steps", int, 1000), 1)
            of_x = settings.of("predict_xstart", bool, False)
            # The authors' fixed variance is beta, or with `sigma_small` that of q(z_s|z_t, x).
            variance = "small" if settings.of("sigma_small", bool, False) else "large"
            if of_x and is_learned:
                settings.problem("predict_xstart: True, but False is expected with learn_sigma = True")
        self.shape(config)
        axis, is_adm = network["noise_embedding"], network["name"] == "adm_unet"
        prediction = "x" if of_x else "eps_and_range" if is_learned else "eps"
        plain = {"name": "snr", "power": 0.0} if of_x else "simple"
        weighting = "elbo" if is_kl else {"name": "hybrid", "share": share} if is_learned else plain
        model = discrete_model(axis["table"], axis["steps"], prediction={"name": prediction}, network=network)
        fixed, others = {"name": "gaussian", "variance": variance}, {}
        trained, sampled = fixed, fixed
        if is_learned:  # the authors clip x_hat in what they measure, not in training
            trained, sampled = "learned_range", {"name": "learned_range", "clip": True}
            model["observation"] |= {"learned": True, "clip": True}
            others["likelihood"] = {"estimator": {"name": "bound", "kernel": sampled}}
        return published(
            model,
            {"weighting": weighting, "steps": axis["steps"] - 1, "kernel": trained},
            *(_ADM if is_adm else _IDDPM),
            flip=is_adm,
            sampling={"steps": min(1000, axis["steps"]), "sampler": {"name": "ancestral", "kernel": sampled}},
            **others,
        )

    def shape(self, config: Config) -> tuple[int, int, int]:
        size = config["image_size"]
        with Settings(config["unet"], _UNET, partial=True) as settings:
            channels = settings.of("in_channels", int, 3)
            settings.only("out_channels", channels * (2 if config["diffusion"].get("learn_sigma") else 1))
            settings.only("image_size", size)
        return size, size, channels

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_unet(model, lambda network: with_openai_arrays(network, arrays, config))

    def remarks(self, config: Config) -> list[str]:
        of = "ADM's for ImageNet 64x64" if openai_network(config)["name"] == "adm_unet" else "iDDPM's for CIFAR-10"
        clips = "The authors clip x_hat to [-1, 1] in bounds and samples; with fixed variances, this is not done."
        if config["diffusion"].get("learn_sigma"):
            clips = "vdmkit likelihood and vdmkit sample clip x_hat to [-1, 1], as the authors do; training and "
            clips += "vdmkit evaluate do not."
        return [f"OpenAI's files do not contain the settings of training: those of the recipe are {of}.", clips]


def openai_network(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe table of the network that a configuration of OpenAI's describes.

    Args:
        config: "unet", the arguments of UNetModel; "diffusion", those of create_gaussian_diffusion; and "image_size".

    Raises:
        CheckpointError: an argument is unknown, missing, or has a value that is not supported; all are listed.
    """
    with Settings(config, "this configuration of OpenAI") as top:
        size, unet, diffusion = top.of("image_size", int), top.of("unet", dict), top.of("diffusion", dict)
        top.ignore("seed")
    with Settings(diffusion, _DIFFUSION) as settings:
        axis = {
            "name": "timestep",
            "table": settings.only("noise_schedule", "linear", "cosine"),
            "steps": settings.of("steps", int, 1000),
            "rescaled": settings.of("rescale_timesteps", bool, False),
        }
        settings.only("timestep_respacing", "", None)
        settings.ignore("learn_sigma", "sigma_small", "use_kl", "predict_xstart", "rescale_learned_sigmas")
    with Settings(unet, _UNET) as model:
        heads, up = model.of("num_heads", int, 1), model.of("num_heads_upsample", int, -1)
        factors = model.of("attention_resolutions", tuple)
        multipliers = model.of("channel_mult", tuple, (1, 2, 4, 8))
        levels = [2**i for i in range(len(multipliers))]  # the authors ignore other factors
        channels = model.of("model_channels", int)
        table = {
            "name": "iddpm_unet",
            "channels": channels,
            "multipliers": [int(channels * one) / max(channels, 1) for one in multipliers],
            "blocks": model.of("num_res_blocks", int),
            "attention": [size // factor for factor in factors if factor in levels],
            "heads": heads,
            "heads_up": heads if up == -1 else up,
            "scale_shift": model.of("use_scale_shift_norm", bool, False),
            "labels": model.of("num_classes", int, 0),
            "dropout": model.of("dropout", float, 0.0),
            "noise_embedding": axis,
        }
        if any(name in unet for name in _OF_GUIDED):
            head_channels = max(model.of("num_head_channels", int, -1), 0)
            resampling = "block" if model.of("resblock_updown", bool, False) else "convolution"
            table |= {"name": "adm_unet", "resampling": resampling, "head_channels": head_channels}
            model.ignore("use_new_attention_order")
        model.expect({"conv_resample": True, "dims": 2})
        model.ignore("image_size", "in_channels", "out_channels", "use_checkpoint", "use_fp16")
    return table


def with_openai_arrays(network: UNet, arrays: dict[str, Any], config: Mapping[str, Any]) -> UNet:
    """Returns the network with OpenAI's parameters, by the authors' names.

    The arrays are removed from `arrays`.

    Raises:
        CheckpointError: paths or shapes do not match; all mismatches are listed.
    """
    is_new_order = bool(config.get("unet", {}).get("use_new_attention_order", False))
    return with_arrays(network, _sources(network, is_new_order), arrays)


def _sources(network: UNet, is_new_order: bool) -> dict[str, WeightSource]:
    """Returns the authors' source of every layer: input and output blocks are numbered.

    In the new order, q, k and v are split before the heads.
    """
    sources = {
        "embedding/dense0": WeightSource("time_embed.0"),
        "embedding/dense1": WeightSource("time_embed.2"),
        "embedding/label": WeightSource("label_emb", inputs_first=True),
        "conv_in": WeightSource("input_blocks.0.0"),
    }
    stages = [("mid/0", "middle_block", network.mid[0])]
    leaves, number = [], 1
    for i, level in enumerate(network.down):
        for j, stage in enumerate(level.stages):
            stages.append((f"down/{i}/stages/{j}", f"input_blocks.{number}", stage))
            number += 1
        leaves.append((f"down/{i}/leave", f"input_blocks.{number}.0", level.leave, "op"))
        number += level.leave is not None
    number = 0
    for i, level in enumerate(network.up):
        for j, stage in enumerate(level.stages):
            stages.append((f"up/{i}/stages/{j}", f"output_blocks.{number}", stage))
            number += 1
        last = 1 if level.stages[-1].attention is None else 2
        leaves.append((f"up/{i}/leave", f"output_blocks.{number - 1}.{last}", level.leave, "conv"))
        sources[f"up/{i}/head/norm"] = WeightSource("out.0")
        sources[f"up/{i}/head/conv"] = WeightSource("out.2", values=network.outputs)
    for ours, theirs, leave, conv in leaves:
        if isinstance(leave, Block):
            sources |= sources_under(ours, theirs, _LAYERS)
        else:
            sources |= {ours: WeightSource(f"{theirs}.{conv}"), f"{ours}/conv": WeightSource(f"{theirs}.{conv}")}
    order = ("qkv", "head", "channel") if is_new_order else ("head", "qkv", "channel")
    for ours, theirs, stage in stages:
        sources |= sources_under(f"{ours}/block", f"{theirs}.0", _LAYERS)
        if stage.attention is not None:
            attention = fused_attention("norm", "qkv", "proj_out", stage.attention.heads, order, (1,))
            sources |= sources_under(f"{ours}/attention", f"{theirs}.1", attention)
    return sources | sources_under("mid/1/block", "middle_block.2", _LAYERS)
