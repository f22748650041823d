# SPDX-License-Identifier: Apache-2.0
"""Checks of recipes before training, so that mistakes show at once, and before two runs are compared."""

import equinox as eqx
import jax

from vdmkit.data.sources import Images
from vdmkit.errors import DataError, RecipeError, VdmkitError
from vdmkit.likelihood.comparison import check_same_estimator
from vdmkit.losses.schedule_loss import check_variance
from vdmkit.losses.weightings import Hybrid
from vdmkit.process import steps_of_bound
from vdmkit.randomness import fold_purpose
from vdmkit.recipes.build import (
    build_estimator,
    build_guidance,
    build_objective,
    build_optimizer,
    build_update,
    init_key,
    state_like,
)
from vdmkit.recipes.schema import Recipe
from vdmkit.schedules import check_ends, check_increasing

_MADE_UP_SHAPES = ((64, 64, 3), (120, 120, 3))


def check_settings(recipe: Recipe) -> None:
    """Runs all checks that need no images. Raises RecipeError or PluginError, as the functions below."""
    check_schedule(recipe)
    check_objective(recipe)
    check_rest(recipe)


def check_objective(recipe: Recipe) -> None:
    """Raises RecipeError if `steps` does not define a bound or a loss, or if `schedule_loss` would change the bound."""
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
    """Evaluates the initial schedule. Raises RecipeError or PluginError, which names the schedule."""
    schedule = recipe.model.schedule.build(key=fold_purpose(init_key(recipe), "schedule"))
    with recipe.model.schedule.component.named("cannot be evaluated"):
        check_increasing(schedule)
        check_ends(schedule)


def check_rest(recipe: Recipe) -> None:
    """Builds the update and everything used after training. Raises RecipeError if a part cannot be built."""
    build_update(recipe, build_optimizer(recipe))
    recipe.sampling.sampler.build()
    _check_sampling_grid(recipe)
    build_guidance(recipe)


def _check_sampling_grid(recipe: Recipe) -> None:
    """Raises RecipeError if the grid's number of steps differs from the recipe's sampling steps."""
    grid, settings = recipe.sampling.grid.build(), recipe.sampling
    latents = settings.steps - (settings.end == "image")  # the last step, to the image, is not in the grid
    if latents:
        grid(recipe.model.schedule.build(key=jax.random.key(0)), latents)


def check_without_data(recipe: Recipe, levels: int) -> None:
    """Builds the model for images of two made-up sizes, without allocating it.

    Raises:
        VdmkitError: both fail with the same message, so the image size is not the reason.
    """
    first, second = _MADE_UP_SHAPES
    refusal = _refusal(recipe, first, levels)
    if refusal and str(refusal) == str(_refusal(recipe, second, levels)):
        raise refusal


def _refusal(recipe: Recipe, shape: tuple[int, int, int], levels: int) -> VdmkitError | None:
    try:
        state_like(recipe, shape, levels)
    except DataError:  # the number of labels comes from data files that are absent
        return None
    except VdmkitError as error:
        return error
    return None


def check_same_measurement(first: tuple[Recipe, Images], second: tuple[Recipe, Images]) -> None:
    """Raises an error unless the likelihoods of two recipes would use the same images and the same draws.

    Raises:
        DataError: the images or their levels differ.
        RecipeError: the estimators, their settings, the number of images or the precision differ.
    """
    (_, test), (_, of_other) = first, second
    if test.levels != of_other.levels:
        raise DataError(
            f"compare: the test images of the first have {test.levels or 'no'} levels, and those of the second "
            f"{of_other.levels or 'no'}, whose likelihoods do not compare. Choose the same data for both with "
            "--set data...."
        )
    if test.identity.sha256 != of_other.identity.sha256:
        raise DataError(
            f"compare: the test images of the first are {test.identity}, and those of the second {of_other.identity}. "
            "Choose the same data for both with --set data...."
        )
    one, other = (build_estimator(recipe, images.levels) for recipe, images in (first, second))
    check_same_estimator(one.describe(test.levels), other.describe(test.levels))
    if not eqx.tree_equal(one, other):
        raise RecipeError(
            "compare: the two recipes give the estimator other settings, with which the estimates share no noise. "
            "Give the same for both, such as --set likelihood.estimator.draws=16."
        )
    for key in ("images", "precision"):
        mine, others = (getattr(recipe.likelihood, key) for recipe, _ in (first, second))
        if mine != others:
            raise RecipeError(
                f"compare: likelihood.{key} is {mine} for the first and {others} for the second. Give the same for "
                f"both, by --set likelihood.{key}=... without --second-set."
            )
