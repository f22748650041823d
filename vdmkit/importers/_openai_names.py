# SPDX-License-Identifier: Apache-2.0
"""iDDPM and ADM of openai/improved-diffusion and openai/guided-diffusion: their configuration and their names."""

from collections.abc import Mapping
from typing import Any

from vdmkit.importers._places import Place, Places, attention, placed, with_arrays
from vdmkit.importers._settings import Settings
from vdmkit.networks import unet
from vdmkit.networks.unet import UNet

_BLOCK = {
    "norm1": Place("in_layers.0"),
    "conv1": Place("in_layers.2"),
    "embed": Place("emb_layers.1"),
    "norm2": Place("out_layers.0"),
    "conv2": Place("out_layers.3"),
    "shortcut": Place("skip_connection", trailing=(1, 1)),
}
_ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "proj_out"}
_OF_GUIDED = ("num_head_channels", "resblock_updown", "use_new_attention_order")


def openai_network(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe table of the network that a configuration of OpenAI's describes.

    Args:
        config: "unet", the arguments of UNetModel; "diffusion", those of create_gaussian_diffusion; and "image_size".

    Raises:
        CheckpointError: an argument is unknown, missing, or has a value without counterpart here; all are listed.
    """
    top = Settings(config, "this configuration of OpenAI")
    size, unet, diffusion = top.of("image_size", int), top.of("unet", dict), top.of("diffusion", dict)
    top.ignore("seed")
    top.finish()
    model = Settings(unet, "the U-Net of these arguments of OpenAI")
    heads = model.of("num_heads", int, 1)
    up = model.of("num_heads_upsample", int, -1)
    factors = model.of("attention_resolutions", tuple)
    multipliers = model.of("channel_mult", tuple, (1, 2, 4, 8))
    levels = [2**i for i in range(len(multipliers))]  # the authors ignore other factors
    channels = model.of("model_channels", int)
    table = {
        "channels": channels,
        "multipliers": [int(channels * one) / max(channels, 1) for one in multipliers],
        "blocks": model.of("num_res_blocks", int),
        "attention": [size // factor for factor in factors if factor in levels],
        "heads": heads,
        "heads_up": heads if up == -1 else up,
        "scale_shift": model.of("use_scale_shift_norm", bool, False),
        "labels": model.of("num_classes", int, 0),
        "dropout": model.of("dropout", float, 0.0),
        "noise_embedding": _axis(diffusion),
    }
    if any(name in unet for name in _OF_GUIDED) or "image_size" in unet:
        table = _guided(model, table)
    else:
        table = {"name": "iddpm_unet", **table}
    _check_rest(model)
    return table


def is_new_order(config: Mapping[str, Any]) -> bool:
    """Returns whether q, k and v are split before the heads."""
    return bool(config.get("unet", {}).get("use_new_attention_order", False))


def _guided(model: Settings, table: dict[str, Any]) -> dict[str, Any]:
    size = model.of("num_head_channels", int, -1)
    table = {
        "name": "adm_unet",
        **table,
        "resampling": "block" if model.of("resblock_updown", bool, False) else "convolution",
    }
    model.ignore("use_new_attention_order")
    return table | {"head_channels": max(size, 0)}


def _check_rest(model: Settings) -> None:
    model.only("conv_resample", True)
    model.only("dims", 2)
    model.ignore("image_size", "in_channels", "out_channels", "use_checkpoint", "use_fp16")
    model.finish()


def _axis(diffusion: Mapping[str, Any]) -> dict[str, Any]:
    settings = Settings(diffusion, "the diffusion of these arguments of OpenAI")
    axis = {
        "name": "timestep",
        "table": settings.only("noise_schedule", "linear", "cosine"),
        "steps": settings.of("steps", int, 1000),
        "rescaled": settings.of("rescale_timesteps", bool, False),
    }
    settings.ignore("learn_sigma", "sigma_small", "use_kl", "predict_xstart", "rescale_learned_sigmas")
    settings.only("timestep_respacing", "", None)
    settings.finish()
    return axis


def with_openai_arrays(network: UNet, arrays: dict[str, Any], config: Mapping[str, Any]) -> UNet:
    """Returns the network with OpenAI's parameters, by the authors' names.

    The arrays are removed from `arrays`.

    Raises:
        CheckpointError: paths or shapes do not fit; all of them are listed.
    """
    return with_arrays(network, openai_places(network, new_order=is_new_order(config)), arrays)


def openai_places(network: UNet, *, new_order: bool) -> Places:
    """Returns the authors' place of every layer: input and output blocks are numbered."""
    order = ("qkv", "head", "channel") if new_order else ("head", "qkv", "channel")
    places = {
        "embedding/dense0": Place("time_embed.0"),
        "embedding/dense1": Place("time_embed.2"),
        "embedding/label": Place("label_emb", inputs_first=True),
        "conv_in": Place("input_blocks.0.0"),
    }
    number = 1
    for i, level in enumerate(network.down):
        for j, stage in enumerate(level.stages):
            places |= _stage(f"down/{i}/stages/{j}", f"input_blocks.{number}", stage, order)
            number += 1
        places |= _leave(f"down/{i}/leave", f"input_blocks.{number}.0", level.leave, "op")
        number += level.leave is not None
    places |= _stage("mid/0", "middle_block", network.mid[0], order)
    places |= placed("mid/1/block", "middle_block.2", _BLOCK)
    return places | _of_outputs(network, order)


def _of_outputs(network: UNet, order: tuple[Any, ...]) -> Places:
    places, number = {}, 0
    for i, level in enumerate(network.up):
        for j, stage in enumerate(level.stages):
            places |= _stage(f"up/{i}/stages/{j}", f"output_blocks.{number}", stage, order)
            number += 1
        last = 1 if level.stages[-1].attention is None else 2
        places |= _leave(f"up/{i}/leave", f"output_blocks.{number - 1}.{last}", level.leave, "conv")
        places[f"up/{i}/head/norm"] = Place("out.0")
        places[f"up/{i}/head/conv"] = Place("out.2", values=network.outputs)
    return places


def _leave(ours: str, theirs: str, leave: Any, conv: str) -> Places:
    if isinstance(leave, unet.Block):
        return placed(ours, theirs, _BLOCK)
    return {ours: Place(f"{theirs}.{conv}"), f"{ours}/conv": Place(f"{theirs}.{conv}")}


def _stage(ours: str, theirs: str, stage: unet.Stage, order: tuple[Any, ...]) -> Places:
    places = placed(f"{ours}/block", f"{theirs}.0", _BLOCK)
    if stage.attention is not None:
        layers = attention(_ATTENTION, stage.attention.heads, order, (1,))
        places |= placed(f"{ours}/attention", f"{theirs}.1", layers)
    return places
