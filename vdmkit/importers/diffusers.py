# SPDX-License-Identifier: Apache-2.0
"""Folders of huggingface/diffusers with DDPM's network (Ho et al. 2020, arXiv 2006.11239)."""

from collections.abc import Mapping
from typing import Any

from vdmkit.importers.formats import Arrays, new_name
from vdmkit.importers.loader import AbstractImporter, Config
from vdmkit.importers.translation import (
    Settings,
    WeightSource,
    WeightSources,
    discrete_model,
    published,
    sources_under,
    with_arrays,
    with_unet,
)
from vdmkit.model import DiffusionModel
from vdmkit.networks.unet import UNet
from vdmkit.registry import register

_BLOCK = {
    "norm1": WeightSource("norm1"),
    "conv1": WeightSource("conv1"),
    "embed": WeightSource("time_emb_proj"),
    "norm2": WeightSource("norm2"),
    "conv2": WeightSource("conv2"),
    "shortcut": WeightSource("conv_shortcut", trailing=(1, 1)),
}
_ATTENTION = {
    "norm": WeightSource("group_norm"),
    "q": WeightSource("to_q"),
    "k": WeightSource("to_k"),
    "v": WeightSource("to_v"),
    "proj_out": WeightSource("to_out.0"),
}
_UNSUPPORTED = {
    "act_fn": "silu",
    "center_input_sample": False,
    "mid_block_scale_factor": 1,
    "time_embedding_type": "positional",
    "add_attention": True,
    "attn_norm_num_groups": None,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "resnet_time_scale_shift": "default",
    "class_embed_type": None,
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
}
"""Arguments of UNet2DModel with the only value that is supported."""

_IGNORED = ("in_channels", "out_channels", "num_train_timesteps", "seed", "diffusers_version", "_class_name")
_IGNORED += ("_diffusers_version", "_name_or_path")
_BLOCK_TYPES = {"DownBlock2D": "UpBlock2D", "AttnDownBlock2D": "AttnUpBlock2D"}
_TABLES = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
_PREDICTIONS = {"epsilon": ("eps", "simple"), "sample": ("x", "simple"), "v_prediction": ("v", "v")}
"""Prediction and weighting; those of x and eps are trained alike in train_unconditional.py of diffusers."""

_VARIANCES = {f"fixed_{size}{log}": size for size in ("small", "large") for log in ("", "_log")}
_SCHEDULERS = tuple(f"{name}Scheduler" for name in ("DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "UniPCMultistep"))
"""Schedulers with DDPM's noise; they differ in how they sample."""


@register("importer", "diffusers")
class DiffusersImporter(AbstractImporter):
    """UNet2DModel with DDPM's betas, from the folder of a pipeline or of its network."""

    def recipe(self, config: Config) -> dict[str, Any]:
        scheduler = config.get("scheduler", {})
        network = diffusers_network(config.get("unet", config), scheduler if "unet" in config else None)
        self.shape(config)
        with Settings(scheduler, "this configuration of DDPMScheduler", partial=True) as settings:
            prediction, weighting = _PREDICTIONS[settings.only("prediction_type", *_PREDICTIONS)]
            kernel = {"name": "gaussian", "variance": _VARIANCES[settings.only("variance_type", *_VARIANCES)]}
        axis = network["noise_embedding"]
        return published(
            discrete_model(axis["table"], axis["steps"], prediction={"name": prediction}, network=network),
            {"weighting": weighting, "steps": axis["steps"] - 1, "kernel": kernel},
            {"learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0},
            {"steps": 800_000, "batch_size": 128, "ema": 0.9999},
            sampling={"sampler": {"name": "ancestral", "kernel": kernel}},
        )

    def shape(self, config: Config) -> tuple[int, int, int]:
        with Settings(config.get("unet", config), "this configuration of UNet2DModel", partial=True) as settings:
            size, channels = settings.of("sample_size", int), settings.of("in_channels", int, 3)
            settings.only("out_channels", channels, default=3)
        return size, size, channels

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_unet(model, lambda network: with_diffusers_arrays(network, arrays))

    def configuration(self, found: Config, given: Config | None) -> Config | None:
        """Returns the given configuration, or the one in the folder."""
        if given is not None:
            return given
        return found if "unet" in found else None

    def remarks(self, config: Config) -> list[str]:
        if "scheduler" not in config:
            return ["There is no configuration of a scheduler: DDPM's own betas, 1e-4 to 0.02, are assumed."]
        if config["scheduler"].get("clip_sample", True) or config["scheduler"].get("thresholding"):
            return ["The scheduler bounds x_hat in samples; here, this is not done."]
        return []


def diffusers_network(config: Mapping[str, Any], scheduler: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the recipe table of the network that a configuration of UNet2DModel describes.

    Args:
        config: The arguments of UNet2DModel.
        scheduler: The arguments of its DDPMScheduler; by default DDPM's betas.

    Raises:
        CheckpointError: an argument is unknown, missing, or has a value that is not supported; all are listed.
    """
    with Settings(config, "this configuration of UNet2DModel") as model:
        widths = model.of("block_out_channels", tuple)
        channels = widths[0] if widths else 1
        # A null head size means one head; an omitted one means heads of 8 channels.
        head_channels = model.of("attention_head_dim", int, 0) if model.has("attention_head_dim") else 8
        table = {
            "name": "ddpm_unet",
            "channels": channels,
            "multipliers": [width / channels for width in widths],
            "blocks": model.of("layers_per_block", int),
            "attention": _attention(model),
            "groups": model.of("norm_num_groups", int),
            "head_channels": head_channels,
            "padding": "both" if model.only("downsample_padding", 0, 1, default=1) else "end",
            "cosines_first": model.of("flip_sin_to_cos", bool, True),
            "frequency_shift": int(model.only("freq_shift", 0, 1)),
            "epsilon": model.of("norm_eps", float, 1e-5),
            "labels": model.of("num_class_embeds", int, 0),
            "dropout": model.of("dropout", float, 0.0),
            "noise_embedding": _axis(scheduler or {}),
        }
        model.expect(_UNSUPPORTED)
        model.ignore(*_IGNORED)
    return table


def _attention(model: Settings) -> list[int]:
    """Returns the heights with attention. The way up must have it where the way down has."""
    down = model.of("down_block_types", tuple)
    size = model.of("sample_size", int)
    if wrong := [one for one in down if one not in _BLOCK_TYPES]:
        model.problem(f"down_block_types: {wrong}, but {' or '.join(_BLOCK_TYPES)} is expected")
        model.ignore("up_block_types")
        return []
    model.only("up_block_types", tuple(_BLOCK_TYPES[one] for one in reversed(down)))
    return [size >> i for i, one in enumerate(down) if one.startswith("Attn")]


def _axis(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    with Settings(scheduler, "this configuration of DDPMScheduler", partial=True) as settings:
        settings.only("_class_name", *_SCHEDULERS)
        table = _TABLES[settings.only("beta_schedule", *_TABLES)]
        if table == "linear":
            settings.expect({"beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000})
        steps = settings.of("num_train_timesteps", int, 1000)
        settings.expect({"trained_betas": None, "rescale_betas_zero_snr": False})
    return {"name": "timestep", "table": table, "steps": steps}


def with_diffusers_arrays(network: UNet, arrays: dict[str, Any]) -> UNet:
    """Returns the network with UNet2DModel's parameters, by their current or older names.

    The arrays are removed from `arrays`.

    Raises:
        CheckpointError: paths or shapes do not match; all mismatches are listed.
    """
    sources: WeightSources = {
        "embedding/dense0": WeightSource("time_embedding.linear_1"),
        "embedding/dense1": WeightSource("time_embedding.linear_2"),
        "embedding/label": WeightSource("class_embedding", inputs_first=True),
        "conv_in": WeightSource("conv_in"),
    }
    stages = [(f"mid/{i}", "mid_block", i) for i in range(2)]
    for i in range(len(network.down)):
        for j in range(len(network.up[i].stages)):  # one stage more than on the way down
            stages += [(f"{way}/{i}/stages/{j}", f"{way}_blocks.{i}", j) for way in ("down", "up")]
        sources[f"down/{i}/leave"] = WeightSource(f"down_blocks.{i}.downsamplers.0.conv")
        sources[f"up/{i}/leave/conv"] = WeightSource(f"up_blocks.{i}.upsamplers.0.conv")
        sources[f"up/{i}/head/norm"] = WeightSource("conv_norm_out")
        sources[f"up/{i}/head/conv"] = WeightSource("conv_out", values=network.outputs)
    for ours, theirs, number in stages:
        sources |= sources_under(f"{ours}/block", f"{theirs}.resnets.{number}", _BLOCK)
        sources |= sources_under(f"{ours}/attention", f"{theirs}.attentions.{number}", _ATTENTION)
    return with_arrays(network, sources, arrays, name_of=new_name)
