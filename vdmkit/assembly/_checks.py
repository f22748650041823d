# SPDX-License-Identifier: Apache-2.0
"""Checks of a recipe before training, so that a mistake does not show after hours."""

import jax

from vdmkit.assembly._measuring import build_guidance
from vdmkit.assembly._training import build_objective, build_optimizer, build_update, init_key, state_like
from vdmkit.errors import DataError, RecipeError, VdmkitError
from vdmkit.noise import check_ends, check_increasing, steps_of_bound
from vdmkit.objective import Hybrid, check_variance
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe

_MADE_UP_SHAPES = ((64, 64, 3), (120, 120, 3))


def check_settings(recipe: Recipe) -> None:
    """Does all checks that need no images. Raises RecipeError or PluginError, as the functions below."""
    check_schedule(recipe)
    check_objective(recipe)
    check_rest(recipe)


def check_objective(recipe: Recipe) -> None:
    """Raises RecipeError if the steps do not define a bound or a loss, or `schedule_loss` would change the bound."""
    objective, schedule = build_objective(recipe), recipe.model.schedule.build(key=jax.random.key(0))
    if isinstance(objective.weighting, Hybrid) and not objective.steps:
        raise RecipeError(
            "weighting hybrid: variances belong to steps. Give objective.steps, or use another weighting."
        )
    if objective.steps:
        steps_of_bound(objective.grid, schedule, objective.steps)
    if objective.schedule_loss == "variance":
        check_variance(schedule, objective.time_sampler, objective.weighting, steps=objective.steps)


def check_schedule(recipe: Recipe) -> None:
    """Evaluates the initial schedule. Raises RecipeError or PluginError, which names it."""
    schedule = recipe.model.schedule.build(key=fold_purpose(init_key(recipe), "schedule"))
    with recipe.model.schedule.component.named("cannot be evaluated"):
        check_increasing(schedule)
        check_ends(schedule)


def check_rest(recipe: Recipe) -> None:
    """Builds the update, and what is used after training. Raises RecipeError if something cannot be built."""
    build_update(recipe, build_optimizer(recipe))
    recipe.sampling.sampler.build()
    _check_sampling_grid(recipe)
    build_guidance(recipe)


def _check_sampling_grid(recipe: Recipe) -> None:
    """Raises RecipeError if the grid has another number of steps than the recipe samples with."""
    grid, settings = recipe.sampling.grid.build(), recipe.sampling
    latents = settings.steps - (settings.end == "image")  # the last step, to the image, is not part of the grid
    if latents:
        grid(recipe.model.schedule.build(key=jax.random.key(0)), latents)


def check_without_data(recipe: Recipe, levels: int) -> None:
    """Builds the model for images of two made-up sizes, without allocating it.

    Raises:
        VdmkitError: both fail with the same message, so the size of the images is not the reason.
    """
    first, second = _MADE_UP_SHAPES
    refusal = _refusal(recipe, first, levels)
    if refusal and str(refusal) == str(_refusal(recipe, second, levels)):
        raise refusal


def _refusal(recipe: Recipe, shape: tuple[int, int, int], levels: int) -> VdmkitError | None:
    try:
        state_like(recipe, shape, levels)
    except DataError:  # the number of labels comes from files that are not here
        return None
    except VdmkitError as error:
        return error
    return None
