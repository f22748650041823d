# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of the authors' released code as a run folder that can be evaluated, sampled and trained on."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import tomli_w

from vdmkit.assembly import build_objective, build_optimizer, state_like
from vdmkit.checkpoint import CheckpointStore, load_official, official_recipe
from vdmkit.data import Identity, Images, batches
from vdmkit.errors import CheckpointError
from vdmkit.files import file_sha256, write_json, writing
from vdmkit.paths import not_a_file
from vdmkit.recipe import Recipe, load_recipe
from vdmkit.run._folder import RunFolder
from vdmkit.run._manifest import session
from vdmkit.run._origin import origin_of
from vdmkit.training import TrainState

_SHAPE, _LEVELS = (32, 32, 3), 256


def import_official(checkpoint: Path, config: Path, folder: RunFolder, overrides: Sequence[str]) -> int:
    """Make `folder` a run of the authors' model, with raw and averaged parameters and Adam's moments. Returns the step.

    Raises:
        CheckpointError: a file cannot be read, the config does not fit the checkpoint, or the folder is in use.
    """
    folder.check_new("-o")
    text = _header(checkpoint) + tomli_w.dumps(official_recipe(_read_config(config)))
    recipe = _parse(text, overrides)
    state = _state(recipe, checkpoint)
    folder.path.mkdir(parents=True, exist_ok=True)
    step = int(state.step)
    store = CheckpointStore(
        folder.checkpoints, keep_last=recipe.training.keep_last, keep_best=recipe.training.keep_best
    )
    imported = file_sha256(checkpoint)
    store.save(step, state, _data_at(step, recipe), origin_of(recipe, (), imported=imported).as_json())
    facts = {"shape": list(_SHAPE), "levels": _LEVELS, "data": None, "plugins": {}, "imported": imported}
    write_json(folder.manifest, facts | {"sessions": [session(step, step)], "newest_checkpoint": step})
    folder.write_recipe(recipe, text)  # last: it marks a run folder
    return step


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


def _data_at(step: int, recipe: Recipe) -> Any:
    """The stream of batches, whatever the images are, at the position that `step` updates lead to."""
    blank = Images(np.zeros((1, *_SHAPE), np.uint8), _LEVELS, Identity("blank", "train", 1, "", 0.0, 0.0, None))
    data = batches(blank, batch_size=recipe.training.batch_size, seed=recipe.seed)
    data.set_state(data.get_state() | {"next_index": step})
    return data


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
