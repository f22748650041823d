# SPDX-License-Identifier: Apache-2.0
"""Reads models of the authors' code (s-sahoo/MuLAN): their configuration and their arrays by name."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from vdmkit.errors import CheckpointError
from vdmkit.importers import Settings, read_weights
from vdmkit.importers.vdm import with_vdm_arrays
from vdmkit.predictions import Eps, V
from vdmkit_mulan._model import LEVELS, Mulan

_ONLY = {
    "vocab_size": LEVELS,
    "unet_type": "vdm",
    "encoder": "unet",
    "gamma_type": "poly_fixedend",
    "latent_type": "topk",
    "topk_noise_type": "gamma",
    "z_conditioning": True,
    "reparam_type": "true",
    "sm_n_timesteps": 0,
}
"""Choices of the authors' code that are made here; another one is refused."""

_UNUSED = (
    *("seed", "sample_softmax", "antithetic_time_sampling", "condition", "model_time", "epsilon", "monotone_layer"),
    *("trace_matching", "importance_sampling", "sigma_prior", "sigma_type", "sigma_min", "sigma_max"),
)
"""Fields that have no effect on the bound of such a model."""


def load(
    weights: str | os.PathLike[str],
    config: Mapping[str, Any] | str | os.PathLike[str],
    vdm_type: str = "mulan_velocity",
) -> Mulan:
    """Returns the model in a file, with the averaged parameters where the file has both.

    Args:
        weights: The Flax checkpoint, or an .npz file with arrays by the authors' paths.
        config: `config.model` of the authors' configuration, as a mapping or a JSON file. A field `image_size` gives
            the size of images other than 32 x 32 (x 3).
        vdm_type: `config.vdm_type`: "mulan_velocity", or "mulan_epsilon", whose U-Net gives the noise.

    Raises:
        CheckpointError: the file cannot be read, or is of a different family; or the configuration has a value that is
            not supported, or does not fit the arrays. All fields or paths are listed.
    """
    path = Path(weights)
    found = read_weights(path)
    if found.family != "mulan":
        raise CheckpointError(f"{path}: its parameters are of family {found.family!r}, not 'mulan'.")
    arguments = _arguments(config if isinstance(config, Mapping) else _read(Path(config)), vdm_type)
    shapes = eqx.filter_eval_shape(lambda key: Mulan(key=key, **arguments), jax.random.key(0))
    return with_vdm_arrays(shapes, found.ema)


def _arguments(config: Mapping[str, Any], vdm_type: str) -> dict[str, Any]:
    """Returns the arguments of `Mulan`."""
    settings = Settings(config, "this configuration of MuLAN")
    for name, value in _ONLY.items():
        settings.only(name, value)
    settings.ignore(*_UNUSED)
    if vdm_type not in ("mulan_velocity", "mulan_epsilon"):
        settings.problem(f"vdm_type: {vdm_type!r}, but 'mulan_velocity' or 'mulan_epsilon' is expected")
    gives_noise = settings.of("velocity_from_epsilon", bool, False) or vdm_type == "mulan_epsilon"
    size = settings.of("image_size", int, 32)
    arguments = {
        "shape": (size, size, 3),
        "prediction": Eps() if gives_noise else V(),
        "latent": settings.of("latent_size", int),
        "ones": settings.of("latent_k", int),
        "gamma_range": (settings.of("gamma_min", float), settings.of("gamma_max", float)),
        "channels": settings.of("sm_n_embd", int),
        "blocks": settings.of("sm_n_layer", int),
        "encoder_blocks": settings.of("forward_n_layer", int),
        "attention": settings.of("with_attention", bool),
        "fourier": settings.of("with_fourier_features", bool),
        "dropout": settings.of("sm_pdrop", float),
    }
    settings.finish()
    return arguments


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a JSON object with the fields of the authors' `config.model`.")
    return config
