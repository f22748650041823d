# SPDX-License-Identifier: Apache-2.0
"""DDPM++ and NCSN++ of yang-song/score_sde_pytorch and score_sde: their configuration and their names."""

from collections.abc import Iterator, Mapping
from typing import Any

from vdmkit.importers._places import Place, Places, placed, with_arrays, without_prefix
from vdmkit.importers._score_sde_flax import flax_places
from vdmkit.importers._settings import Settings
from vdmkit.networks import unet
from vdmkit.networks.unet import UNet

_BLOCK = {
    "norm1": Place("GroupNorm_0"),
    "conv1": Place("Conv_0"),
    "embed": Place("Dense_0"),
    "norm2": Place("GroupNorm_1"),
    "conv2": Place("Conv_1"),
    "shortcut": Place("Conv_2", trailing=(1, 1)),
}
_NIN = {"fields": ("W", "b"), "inputs_first": True}
_ATTENTION = {
    "norm": Place("GroupNorm_0"),
    "q": Place("NIN_0", **_NIN),
    "k": Place("NIN_1", **_NIN),
    "v": Place("NIN_2", **_NIN),
    "proj_out": Place("NIN_3", **_NIN),
}
_LAYERS = {
    "ResnetBlockBigGANpp": _BLOCK,
    "AttnBlockpp": _ATTENTION,
    "Combine": {"pyramid": Place("Conv_0", trailing=(1, 1))},
    "Downsample": {"pyramid": Place("Conv2d_0")},
}
_PROGRESSIVE = {"none": "none", "input_skip": "skip", "output_skip": "skip", "residual": "residual"}


def score_sde_network(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe table of the network that a configuration of Score-SDE describes.

    Raises:
        CheckpointError: a field is unknown, missing, or has a value without counterpart here; all are listed.
    """
    model = Settings(config.get("model", {}), "the model of this configuration of Score-SDE")
    is_fourier = model.only("embedding_type", "fourier", "positional") == "fourier"
    by_sigma = model.of("scale_by_sigma", bool)
    table = _sizes(model) | {
        "taps": _taps(model),
        "rescale": model.of("skip_rescale", bool),
        "features_multiplier": 2 if is_fourier else 1,
        "noise_embedding": _axis(model, config),
        "latent": {"name": _PATHS[_sde(config)]},
    }
    if _sde(config) != "vesde" and not config.get("data", {}).get("centered"):
        model.problem("data.centered: False, but True is expected for this SDE, whose data are in [-1, 1] here")
    progressive = {
        "progressive_input": _PROGRESSIVE[model.only("progressive_input", "none", "input_skip", "residual")],
        "progressive_output": _PROGRESSIVE[model.only("progressive", "none", "output_skip")],
    }
    _check_rest(model)
    if str(config.get("training", {}).get("sde", "vpsde")).lower() not in _PATHS:
        model.problem(f"training.sde: {config['training']['sde']!r}, but {' or '.join(_PATHS)} is expected")
    if not is_fourier and (by_sigma or _sde(config) == "vesde"):
        model.problem("embedding_type: 'positional', but 'fourier' is expected for the variance exploding SDE")
    if progressive["progressive_input"] == "residual" and not model.of("fir", bool):
        model.problem("fir: False, but True is expected with progressive_input = 'residual'")
    model.finish()
    if not is_fourier and set(progressive.values()) == {"none"}:
        return {"name": "ddpmpp", **table}
    features = {"features": "fourier" if is_fourier else "positional", "by_sigma": by_sigma}
    return {"name": "ncsnpp", **table, **features, **progressive}


def with_score_sde_arrays(network: UNet, arrays: dict[str, Any]) -> UNet:
    """Returns the network with the parameters and buffers of Score-SDE, by the names of its torch or Flax code.

    The arrays are removed from `arrays`.

    Raises:
        CheckpointError: paths or shapes do not fit; all of them are listed.
    """
    if any("/" in name for name in arrays):
        return with_arrays(network, flax_places(_modules(network)), arrays, joint="/")
    arrays = without_prefix(arrays, "module.")
    return with_arrays(network, score_sde_places(network), arrays, lambda name: name == "sigmas")


def score_sde_places(network: UNet) -> Places:
    """Returns the authors' place of every layer: their modules are numbered in the order of their making."""
    places: Places = {}
    for number, (path, kind) in enumerate(_modules(network)):
        theirs = f"all_modules.{number}"
        places |= placed(path, theirs, _LAYERS[kind]) if kind in _LAYERS else {path: Place(theirs)}
    if "embedding/features" in places:
        places["embedding/features"] = Place("all_modules.0", fields=("W", ""))
    return places


_PATHS = {"vpsde": "variance_preserving", "subvpsde": "sub_variance_preserving", "vesde": "variance_exploding"}


def _sde(config: Mapping[str, Any]) -> str:
    found = str(config.get("training", {}).get("sde", "vpsde")).lower()
    return found if found in _PATHS else "vpsde"


def _taps(model: Settings) -> list[float]:
    is_fir = model.of("fir", bool)
    model.ignore("fir_kernel")
    return model.taps("fir_kernel", (1, 3, 3, 1)) if is_fir else [1.0, 1.0]


def _sizes(model: Settings) -> dict[str, Any]:
    return {
        "channels": model.of("nf", int),
        "multipliers": [float(one) for one in model.of("ch_mult", tuple)],
        "blocks": model.of("num_res_blocks", int),
        "attention": list(model.of("attn_resolutions", tuple)),
        "dropout": model.of("dropout", float),
    }


def _axis(model: Settings, config: Mapping[str, Any]) -> dict[str, Any]:
    betas = {"beta_min": model.of("beta_min", float, 0.1), "beta_max": model.of("beta_max", float, 20.0)}
    if _sde(config) == "vesde":
        return {"name": "log_sigma", "factor": 1.0, "unit": 1.0 if config.get("data", {}).get("centered") else 2.0}
    return {"name": "sde_time", **betas, "sde": "vp" if _sde(config) == "vpsde" else "sub_vp"}


def _check_rest(model: Settings) -> None:
    model.only("name", "ncsnpp")
    model.only("conditional", True)
    model.only("resblock_type", "biggan")
    model.only("attention_type", "ddpm")
    model.only("progressive_combine", "sum")
    model.only("nonlinearity", "swish")
    model.only("normalization", "GroupNorm")
    model.only("conv_size", 3)
    model.ignore("ema_rate", "fourier_scale", "init_scale", "num_scales", "sigma_max", "sigma_min")
    model.ignore("resamp_with_conv")  # of the other kind of residual blocks


def _modules(network: UNet) -> Iterator[tuple[str, str]]:
    """Yields our path, and the class in their Flax code, of each of their modules in the order of their making."""
    if isinstance(network.embedding.features, unet.FourierFeatures):
        yield "embedding/features", "GaussianFourierProjection"
    yield from (("embedding/dense0", "Dense"), ("embedding/dense1", "Dense"), ("conv_in", "Conv"))
    for i, level in enumerate(network.down):
        yield from _of_stages(f"down/{i}/stages", level.stages)
        if isinstance(level.leave, unet.Block):
            yield f"down/{i}/leave", "ResnetBlockBigGANpp"
        if level.pyramid is not None:
            yield f"down/{i}", "Combine" if network.design.progressive_input == "skip" else "Downsample"
    yield from _of_stages("mid", network.mid)
    for i, level in enumerate(network.up):
        yield from _of_stages(f"up/{i}/stages", level.stages)
        if level.head is not None:
            yield from ((f"up/{i}/head/norm", "GroupNorm"), (f"up/{i}/head/conv", "Conv"))
        if level.leave is not None:
            yield f"up/{i}/leave", "ResnetBlockBigGANpp"


def _of_stages(path: str, stages: tuple[unet.Stage, ...]) -> Iterator[tuple[str, str]]:
    for i, stage in enumerate(stages):
        yield f"{path}/{i}/block", "ResnetBlockBigGANpp"
        if stage.attention is not None:
            yield f"{path}/{i}/attention", "AttnBlockpp"
