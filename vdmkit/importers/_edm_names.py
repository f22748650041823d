# SPDX-License-Identifier: Apache-2.0
"""DDPM++, NCSN++ and ADM of NVlabs/edm: their configuration and their names."""

from collections.abc import Mapping
from typing import Any

from vdmkit.importers._places import Place, Places, attention, placed, with_arrays, without_prefix
from vdmkit.importers._settings import Settings
from vdmkit.networks import unet
from vdmkit.networks.unet import UNet

_BLOCK = {
    "norm1": Place("norm0"),
    "conv1": Place("conv0"),
    "embed": Place("affine"),
    "norm2": Place("norm1"),
    "conv2": Place("conv1"),
    "shortcut": Place("skip", trailing=(1, 1)),
}
_ATTENTION = {"norm": "norm2", "qkv": "qkv", "proj_out": "proj"}
_PROGRESSIVE = {"standard": "none", "skip": "skip", "residual": "residual"}
_AXES = {
    "edm": {"name": "log_sigma", "factor": 0.25, "unit": 1.0},
    "vp": {"name": "sde_time"},
    "ve": {"name": "log_sigma", "factor": 1.0, "unit": 2.0},
}


def edm_network(config: Mapping[str, Any], preconditioning: str = "edm") -> dict[str, Any]:
    """Returns the recipe table of the network that these arguments of EDM's constructors describe.

    Args:
        config: The arguments of EDMPrecond, those of its model included.
        preconditioning: What the network sees of sigma, as in EDMPrecond ("edm"), VPPrecond ("vp") or VEPrecond ("ve").

    Raises:
        CheckpointError: an argument is unknown, missing, or has a value without counterpart here; all are listed.
    """
    model = Settings(config, "the network of these arguments of EDM")
    is_song = model.only("model_type", "SongUNet", "DhariwalUNet") == "SongUNet"
    table = {
        "channels": model.of("model_channels", int, 128 if is_song else 192),
        "multipliers": [
            float(one) for one in model.of("channel_mult", tuple, (1, 2, 2, 2) if is_song else (1, 2, 3, 4))
        ],
        "blocks": model.of("num_blocks", int, 4 if is_song else 3),
        "attention": list(model.of("attn_resolutions", tuple, (16,) if is_song else (32, 16, 8))),
        "width_multiplier": model.of("channel_mult_emb", int, 4),
        "labels": model.of("label_dim", int, 0),
        "label_dropout": model.of("label_dropout", float, 0.0),
        "augment": model.of("augment_dim", int, 0),
        "dropout": model.of("dropout", float, 0.10),
        "noise_embedding": _AXES[preconditioning],
    }
    table = (_song if is_song else _dhariwal)(model, table)
    model.of("img_resolution", int)
    model.ignore("img_channels", "in_channels", "out_channels", "sigma_data", "use_fp16")
    model.ignore("sigma_min", "sigma_max", "seed")
    model.finish()
    return table


def _song(model: Settings, table: dict[str, Any]) -> dict[str, Any]:
    table = table | {
        "features_multiplier": model.of("channel_mult_noise", int, 1),
        "taps": model.taps("resample_filter", (1, 1)),
        "latent": {"name": "variance_preserving"},
    }
    features = model.only("embedding_type", "positional", "fourier")
    encoder = _PROGRESSIVE[model.only("encoder_type", "standard", "skip", "residual")]
    decoder = _PROGRESSIVE[model.only("decoder_type", "standard", "skip")]
    if (features, encoder, decoder) == ("positional", "none", "none"):
        return {"name": "ddpmpp", **table}
    return {
        "name": "ncsnpp",
        **table,
        "features": features,
        "progressive_input": encoder,
        "progressive_output": decoder,
    }


def _dhariwal(model: Settings, table: dict[str, Any]) -> dict[str, Any]:
    heads = {"head_channels": model.of("channels_per_head", int, 64), "group_size": 4}
    return {"name": "adm_unet", **table, **heads}


def with_edm_arrays(network: UNet, arrays: dict[str, Any], config: Mapping[str, Any]) -> UNet:
    """Returns the network with the parameters and buffers of EDM, by the authors' names.

    The arrays are removed from `arrays`.

    Raises:
        CheckpointError: paths or shapes do not fit; all of them are listed.
    """
    arrays = without_prefix(arrays, "model.")
    places = edm_places(network, config["img_resolution"])
    return with_arrays(network, places, arrays, lambda name: name.endswith("resample_filter"))


def edm_places(network: UNet, height: int) -> Places:
    """Returns the authors' place of every layer; most are named by the resolution."""
    top = f"{height}x{height}"
    places = {
        "embedding/features": Place("map_noise", fields=("freqs", "")),
        "embedding/dense0": Place("map_layer0"),
        "embedding/dense1": Place("map_layer1"),
        "embedding/label": Place("map_label"),
        "embedding/augment": Place("map_augment"),
        "conv_in": Place(f"enc.{top}_conv"),
    }
    lowest = f"{height >> (len(network.down) - 1)}"
    for i, stage in enumerate(network.mid):
        places |= _stage(f"mid/{i}", f"dec.{lowest}x{lowest}_in{i}", stage)
    for i in range(len(network.down)):
        places |= _down(network, i, f"{height >> i}x{height >> i}", f"{height >> (i + 1)}x{height >> (i + 1)}")
        at = len(network.down) - 1 - i
        places |= _up(network, i, f"{height >> at}x{height >> at}", f"{2 * height >> at}x{2 * height >> at}")
    return places


def _down(network: UNet, i: int, here: str, below: str) -> Places:
    places: Places = {}
    for j, stage in enumerate(network.down[i].stages):
        places |= _stage(f"down/{i}/stages/{j}", f"enc.{here}_block{j}", stage)
    places |= placed(f"down/{i}/leave", f"enc.{below}_down", _BLOCK)
    is_skip = network.design.progressive_input == "skip"
    aux = Place(f"enc.{below}_aux_skip", trailing=(1, 1)) if is_skip else Place(f"enc.{below}_aux_residual")
    return places | {f"down/{i}/pyramid": aux}


def _up(network: UNet, i: int, here: str, above: str) -> Places:
    places: Places = {}
    for j, stage in enumerate(network.up[i].stages):
        places |= _stage(f"up/{i}/stages/{j}", f"dec.{here}_block{j}", stage)
    places |= placed(f"up/{i}/leave", f"dec.{above}_up", _BLOCK)
    head = "out" if network.design.cosines_first else f"dec.{here}_aux"
    return places | {f"up/{i}/head/norm": Place(f"{head}_norm"), f"up/{i}/head/conv": Place(f"{head}_conv")}


def _stage(ours: str, theirs: str, stage: unet.Stage) -> Places:
    places = placed(f"{ours}/block", theirs, _BLOCK)
    if stage.attention is not None:
        layers = attention(_ATTENTION, stage.attention.heads, ("head", "channel", "qkv"), (1, 1))
        places |= placed(f"{ours}/attention", theirs, layers)
    return places
