# SPDX-License-Identifier: Apache-2.0
"""DDPM's U-Net as UNet2DModel of huggingface/diffusers: its configuration and its names."""

from collections.abc import Mapping
from typing import Any

from vdmkit.importers._places import Place, Places, placed, renamed, with_arrays
from vdmkit.importers._settings import Settings
from vdmkit.networks.unet import UNet

_BLOCK = {
    "norm1": Place("norm1"),
    "conv1": Place("conv1"),
    "embed": Place("time_emb_proj"),
    "norm2": Place("norm2"),
    "conv2": Place("conv2"),
    "shortcut": Place("conv_shortcut", trailing=(1, 1)),
}
_ATTENTION = {
    "norm": Place("group_norm"),
    "q": Place("to_q"),
    "k": Place("to_k"),
    "v": Place("to_v"),
    "proj_out": Place("to_out.0"),
}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def diffusers_network(config: Mapping[str, Any], scheduler: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the recipe table of the network that a configuration of UNet2DModel describes.

    Args:
        config: The arguments of UNet2DModel.
        scheduler: Those of its DDPMScheduler; DDPM's own betas by default.

    Raises:
        CheckpointError: an argument is unknown, missing, or has a value without counterpart here; all are listed.
    """
    model = Settings(config, "this configuration of UNet2DModel")
    widths = model.of("block_out_channels", tuple)
    channels = widths[0] if widths else 1
    table = {
        "name": "ddpm_unet",
        "channels": channels,
        "multipliers": [width / channels for width in widths],
        "blocks": model.of("layers_per_block", int),
        "attention": _attention(model),
        "groups": model.of("norm_num_groups", int),
        "head_channels": _head_channels(model),
        "padding": "both" if model.only("downsample_padding", 0, 1, default=1) else "end",
        "cosines_first": model.of("flip_sin_to_cos", bool, True),
        "frequency_shift": int(model.only("freq_shift", 0, 1)),
        "epsilon": model.of("norm_eps", float, 1e-5),
        "labels": model.of("num_class_embeds", int, 0),
        "dropout": model.of("dropout", float, 0.0),
        "noise_embedding": _axis(scheduler or {}),
    }
    _check_rest(model)
    return table


def with_diffusers_arrays(network: UNet, arrays: dict[str, Any]) -> UNet:
    """Returns the network with UNet2DModel's parameters, by its names, or by those of older files.

    The arrays are removed from `arrays`.

    Raises:
        CheckpointError: paths or shapes do not fit; all of them are listed.
    """
    return with_arrays(network, diffusers_places(network), renamed(arrays, _new_name))


def diffusers_places(network: UNet) -> Places:
    """Returns the authors' place of every layer."""
    places = {
        "embedding/dense0": Place("time_embedding.linear_1"),
        "embedding/dense1": Place("time_embedding.linear_2"),
        "embedding/label": Place("class_embedding", inputs_first=True),
        "conv_in": Place("conv_in"),
    }
    for i in range(len(network.down)):
        for j in range(network.design.blocks + 1):
            places |= _stage(f"down/{i}/stages/{j}", f"down_blocks.{i}", j)
            places |= _stage(f"up/{i}/stages/{j}", f"up_blocks.{i}", j)
        places[f"down/{i}/leave"] = Place(f"down_blocks.{i}.downsamplers.0.conv")
        places[f"up/{i}/leave/conv"] = Place(f"up_blocks.{i}.upsamplers.0.conv")
        places[f"up/{i}/head/norm"] = Place("conv_norm_out")
        places[f"up/{i}/head/conv"] = Place("conv_out", values=network.outputs)
    for i in range(2):
        places |= _stage(f"mid/{i}", "mid_block", i)
    return places


def _stage(ours: str, theirs: str, number: int) -> Places:
    places = placed(f"{ours}/block", f"{theirs}.resnets.{number}", _BLOCK)
    return places | placed(f"{ours}/attention", f"{theirs}.attentions.{number}", _ATTENTION)


def _new_name(name: str) -> str:
    module, _, field = name.rpartition(".")
    parent, _, layer = module.rpartition(".")
    return f"{parent}.{_OLD[layer]}.{field}" if ".attentions." in name and layer in _OLD else name


def _head_channels(model: Settings) -> int:
    """Returns the channels of a head; UNet2DModel has one head for null, and heads of 8 channels if nothing is said."""
    return model.of("attention_head_dim", int, 0) if model.has("attention_head_dim") else 8


def _attention(model: Settings) -> list[int]:
    """Returns the heights with attention. The way up must have it where the way down has."""
    down = model.of("down_block_types", tuple)
    size = model.of("sample_size", int)
    kinds = {"DownBlock2D": "UpBlock2D", "AttnDownBlock2D": "AttnUpBlock2D"}
    wrong = [one for one in down if one not in kinds]
    if wrong:
        model.problem(f"down_block_types: {wrong}, but {' or '.join(kinds)} is expected")
        model.ignore("up_block_types")
        return []
    model.only("up_block_types", tuple(kinds[one] for one in reversed(down)))
    return [size >> i for i, one in enumerate(down) if one.startswith("Attn")]


_TABLES = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
_SCHEDULERS = tuple(f"{name}Scheduler" for name in ("DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "UniPCMultistep"))
"""Those whose noise is DDPM's; they differ in how they sample."""


def _axis(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    settings = Settings(scheduler, "this configuration of DDPMScheduler")
    settings.only("_class_name", *_SCHEDULERS)
    table = _TABLES[settings.only("beta_schedule", *_TABLES)]
    steps = settings.of("num_train_timesteps", int, 1000) if table == "cosine" else _steps_of_linear(settings)
    settings.only("trained_betas", None)
    settings.only("rescale_betas_zero_snr", False)
    settings.ignore(*scheduler)  # the others concern predictions and samples
    settings.finish()
    return {"name": "timestep", "table": table, "steps": steps}


def _steps_of_linear(settings: Settings) -> int:
    settings.only("beta_start", 1e-4)
    settings.only("beta_end", 0.02)
    return settings.only("num_train_timesteps", 1000)


def _check_rest(model: Settings) -> None:
    model.only("act_fn", "silu")
    model.only("center_input_sample", False)
    model.only("mid_block_scale_factor", 1)
    model.only("time_embedding_type", "positional")
    model.only("add_attention", True)
    model.only("attn_norm_num_groups", None)
    model.only("downsample_type", "conv")
    model.only("upsample_type", "conv")
    model.only("resnet_time_scale_shift", "default")
    model.only("class_embed_type", None)
    model.only("time_embedding_dim", None)
    model.only("mid_block_type", "UNetMidBlock2D")
    model.ignore("in_channels", "out_channels", "num_train_timesteps", "seed", "diffusers_version")
    model.ignore("_class_name", "_diffusers_version", "_name_or_path")
    model.finish()
