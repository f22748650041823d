# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the authors' released code (google-research/vdm), with their configuration."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax
import tomli_w

from vdmkit.assembly import build_objective, build_optimizer, state_like
from vdmkit.errors import CheckpointError
from vdmkit.files import file_sha256, writing
from vdmkit.importers._imported import Imported
from vdmkit.importers._vdm_config import official_recipe
from vdmkit.importers._vdm_state import load_official
from vdmkit.paths import not_a_file
from vdmkit.recipe import Recipe, load_recipe
from vdmkit.training import TrainState

_SHAPE, _LEVELS = (32, 32, 3), 256


def read_vdm(checkpoint: Path, config: Path, overrides: Sequence[str] = ()) -> Imported:
    """Returns the authors' model as a recipe and a state: raw and averaged parameters, Adam's moments, and the step.

    Args:
        checkpoint: A `ckpt-<n>.flax` file.
        config: The JSON file of its VDMConfig.
        overrides: Recipe keys in the form of `--set`.

    Raises:
        CheckpointError: a file cannot be read, or the configuration does not fit the checkpoint.
    """
    text = _header(checkpoint) + tomli_w.dumps(official_recipe(_read_config(config)))
    recipe = _parse(text, overrides)
    return Imported(recipe, text, _state(recipe, checkpoint), _SHAPE, _LEVELS, file_sha256(checkpoint))


def _parse(text: str, overrides: Sequence[str]) -> Recipe:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "recipe.toml"
        with writing(path):
            path.write_text(text)
        return load_recipe(path, overrides)


def _state(recipe: Recipe, checkpoint: Path) -> TrainState:
    template = state_like(recipe, _SHAPE, _LEVELS)
    official = load_official(checkpoint, template.model)
    optimizer = build_optimizer(recipe)
    params, ema = (eqx.filter(model, eqx.is_inexact_array) for model in (official.model, official.ema))
    opt_state = optax.tree_utils.tree_set(optimizer.init(params), mu=official.mu, nu=official.nu, count=official.count)
    step = jnp.asarray(official.step, jnp.int32)
    return TrainState(official.model, ema, opt_state, step, build_objective(recipe))


def _read_config(path: Path) -> dict[str, Any]:
    if reason := not_a_file(path):
        raise CheckpointError(f"{path}: {reason}. Give the JSON of the authors' VDMConfig.")
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a JSON object with the fields of the authors' VDMConfig.")
    return config


def _header(checkpoint: Path) -> str:
    return f"# Imported from {checkpoint.name}, a checkpoint of the authors' released code (google-research/vdm).\n"
