# SPDX-License-Identifier: Apache-2.0
"""Builds the training that a recipe describes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray

from vdmkit.assembly._model import build_model, training_counts
from vdmkit.data import AbstractSource, Images
from vdmkit.errors import RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.noise import gammas_of
from vdmkit.objective import Objective
from vdmkit.optimizer import adamw, interior_apart, learning_rates
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe
from vdmkit.training import TrainState, Update, initial_state


def build_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Builds the recipe's optimiser for its number of steps."""
    optimizer = recipe.optimizer.build(steps=recipe.training.steps)
    return interior_apart(optimizer) if recipe.objective.schedule_loss == "variance" else optimizer


def build_learning_rate(recipe: Recipe) -> optax.Schedule | None:
    """Returns the learning rate as a function of the updates made; None for a plugin's optimiser."""
    if recipe.optimizer.component.target is not adamw:
        return None
    keys = {key: recipe.optimizer.params[key] for key in ("learning_rate", "warmup_steps", "decay")}
    return learning_rates(recipe.training.steps, **keys)


def build_update(recipe: Recipe, optimizer: optax.GradientTransformation) -> Update:
    """Builds the recipe's training step."""
    settings = recipe.training
    if settings.batch_size % settings.micro_batches:
        raise RecipeError(
            f"training.micro_batches = {settings.micro_batches} does not divide training.batch_size = "
            f"{settings.batch_size}. Choose a divisor of it."
        )
    of_compute = (settings.compute, settings.matmul_precision, settings.micro_batches)
    return Update(optimizer, settings.ema, settings.ema_warmup, *of_compute)


def build_objective(recipe: Recipe) -> Objective:
    """Builds the recipe's objective, before its time sampler has learned."""
    choices = recipe.objective
    time_sampler, weighting = choices.time_sampler.build(), choices.weighting.build()
    return Objective(
        time_sampler, weighting, choices.steps, choices.schedule_loss, choices.kernel.build(), choices.grid.build()
    )


def init_key(recipe: Recipe) -> PRNGKeyArray:
    """Returns the key of the parameters before training."""
    return fold_purpose(jax.random.key(recipe.seed), "init")


def initial_model(recipe: Recipe, train: Images) -> DiffusionModel:
    """Returns the model that training starts from: a function of the recipe and the training set alone."""
    return build_model(recipe, training_counts(recipe, train), key=init_key(recipe))


def build_state(recipe: Recipe, level_counts: Int[Array, "h w c v"]) -> TrainState:
    """Builds the initial training state, a function of the recipe and the training set alone."""
    model = build_model(recipe, level_counts, key=init_key(recipe))
    return initial_state(model, build_optimizer(recipe), build_objective(recipe))


def state_like(recipe: Recipe, shape: tuple[int, int, int], levels: int) -> TrainState:
    """Returns the shapes and types of the recipe's state, into which a checkpoint is read, without allocating it."""
    counts = jax.ShapeDtypeStruct((*shape, levels), jnp.int32)
    return eqx.filter_eval_shape(build_state, recipe, counts)


def count_parameters(recipe: Recipe, source: AbstractSource) -> int:
    """Returns the number of trained parameters, without allocating them."""
    model = state_like(recipe, source.shape, source.levels).ema
    return sum(leaf.size for leaf in jax.tree.leaves(model))


def scalars_of(recipe: Recipe, state: TrainState, step: int) -> dict[str, ArrayLike]:
    """Returns gamma_0 and gamma_1 of the schedule, and the learning rate of the last update if it is known.

    The device may still be computing them, and it does not matter what becomes of the state.
    """
    gamma_0, gamma_1 = gammas_of(state.model.schedule, 1)
    ends = {"schedule/gamma_0": gamma_0, "schedule/gamma_1": gamma_1}
    rate = build_learning_rate(recipe)
    return ends if rate is None else {"learning_rate": rate(step - 1), **ends}
