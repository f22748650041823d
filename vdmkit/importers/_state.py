# SPDX-License-Identifier: Apache-2.0
"""The training state of an imported model."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from vdmkit.errors import CheckpointError
from vdmkit.importers._described import Described
from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers.files._adam import Adam, Arrays
from vdmkit.importers.files._limits import shown
from vdmkit.importers.files._weights import Weights, step_in
from vdmkit.model import DiffusionModel
from vdmkit.recipes.build import build_objective, build_optimizer, state_like
from vdmkit.recipes.schema import Recipe
from vdmkit.training.optimizers import adamw
from vdmkit.training.step import TrainState


def state_of(path: Path, importer: AbstractImporter, made: Described, weights: Weights, config: Config) -> TrainState:
    """Returns the state of the recipe with the arrays of `weights`.

    Raises:
        CheckpointError: they do not fit the model, or are not finite, or it has parameters that are in no file.
    """
    recipe, template = made.recipe, state_like(made.recipe, made.shape, made.levels).model

    def fill(arrays: Arrays) -> DiffusionModel:
        broken = [name for name, array in arrays.items() if not _is_finite(array)]
        try:
            return _finite(_whole(importer.filled(template, arrays, config)), broken)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    ema = fill(weights.ema)
    model = ema if weights.raw is None else fill(weights.raw)
    opt_state = _opt_state(recipe, model, weights.adam, fill, path)
    step = jnp.asarray(weights.step or 0, jnp.int32)
    return TrainState(model, _parameters(ema), opt_state, step, build_objective(recipe))


def _opt_state(
    recipe: Recipe, model: DiffusionModel, adam: Adam | None, fill: Callable[[Arrays], DiffusionModel], path: Path
) -> PyTree:
    """Returns the optimiser's state; of AdamW with the moments in the file, if it has them."""
    init = build_optimizer(recipe).init
    if recipe.optimizer.component.target is not adamw:
        return init(_parameters(model))
    fresh = _zeros(eqx.filter_eval_shape(init, _parameters(model)))
    if adam is None:
        return fresh
    mu, nu = (_parameters(fill(moments)) for moments in (adam.mu, adam.nu))
    count = jnp.asarray(step_in(adam.count, path), jnp.int32)
    return optax.tree_utils.tree_set(fresh, mu=mu, nu=nu, count=count)


def _zeros(shapes: PyTree) -> PyTree:
    """Returns AdamW's state before its first update. Arrays of one shape are one array: the state is only saved."""
    make = functools.cache(jnp.zeros)
    return jax.tree.map(lambda leaf: make(leaf.shape, leaf.dtype), shapes)


def _parameters(model: DiffusionModel) -> Any:
    return eqx.filter(model, eqx.is_inexact_array)


def _is_finite(array: Any) -> bool:
    return not jnp.issubdtype(array.dtype, jnp.inexact) or bool(np.isfinite(array).all())


def _finite(model: DiffusionModel, broken: Sequence[str]) -> DiffusionModel:
    """Raises CheckpointError if a number of the model is not finite; `broken` names the arrays of the file with such.

    A constant that the model does without may be broken.
    """
    if all(map(_is_finite, jax.tree.leaves(_parameters(model)))):
        return model
    named = ", ".join(map(shown, broken[:5])) + (", ..." if len(broken) > 5 else "")
    what = f"NaN or infinite numbers are in {named}" if broken else "numbers are too large for float32"
    raise CheckpointError(f"{what}: training had diverged, or the file is damaged. Fetch it again, or an earlier one.")


def _whole(model: DiffusionModel) -> DiffusionModel:
    """Raises CheckpointError if the model has arrays that the file did not give it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(model)
    missing = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in leaves
        if isinstance(leaf, jax.ShapeDtypeStruct)
    ]
    if missing:
        raise CheckpointError(
            f"the recipe's model has parameters that are not in the file: {', '.join(missing[:5])}. "
            "Omit the --set that adds them."
        )
    return model
