# SPDX-License-Identifier: Apache-2.0
"""Measuring the test bound of a model."""

import time
from collections.abc import Sequence

import jax
import numpy as np

from vdmkit.data import Images, Prints, copies_of, groups_of, prints_of
from vdmkit.errors import DataError
from vdmkit.likelihood import bound_of_images, describe_bound, interval
from vdmkit.model import DiffusionModel
from vdmkit.noise import check_increasing
from vdmkit.objective import Bound, bits_per_dim
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe
from vdmkit.report import progress
from vdmkit.run._arithmetic import arithmetic
from vdmkit.run._evaluation import Evaluation
from vdmkit.run._pass import sample_of
from vdmkit.run._remarks import on_copies


def evaluate(
    model: DiffusionModel,
    test: Images,
    recipe: Recipe,
    *,
    step: int,
    trained_on: Prints | None = None,
    remarks: Sequence[str] = (),
    seconds: float = float("inf"),
) -> Evaluation:
    """Estimate the bound of every test image once, by the recipe's evaluation settings and seed.

    Args:
        step: the checkpoint's, for the record.
        trained_on: what is known of each training image: `prints_of` them, or their `image_hashes`.
        remarks: sentences to print beside the result, which `check_comparable` returns.
        seconds: after them, the images done so far are reported.

    Raises:
        DataError: the images are not of the model's shape or number of levels, or all the same.
        RecipeError: the schedule does not rise.
        NonFiniteError: a term of the bound is not finite.
    """
    check_fits(model, test)
    check_increasing(model.schedule)
    settings = recipe.evaluation
    batches = -(-len(test.pixels) // settings.batch_size)
    end = time.monotonic() + seconds
    with progress("evaluating", batches * settings.draws) as advance:
        bound = bound_of_images(
            model,
            test.pixels,
            draws=settings.draws,
            steps=recipe.evaluation_steps,
            kernel=recipe.objective.kernel.build(),
            grid=recipe.objective.grid.build(),
            batch_size=settings.batch_size,
            key=fold_purpose(jax.random.key(recipe.seed), "evaluate"),
            on_draw=advance,
            stop=lambda: time.monotonic() > end,
        )
    bound = jax.tree.map(lambda nats: bits_per_dim(nats, model.dimensions), bound)
    return _evaluation(bound, test, recipe, step, trained_on, remarks)


def _evaluation(
    bound: Bound, test: Images, recipe: Recipe, step: int, trained_on: Prints | None, remarks: Sequence[str]
) -> Evaluation:
    """What to report of a bound in bits per dimension, two estimates an image."""
    prints = prints_of(test)
    copies = copies_of(prints, trained_on)
    groups = groups_of(prints, trained_on)[sample_of(len(prints), bound.total.shape[-1])]  # those that were done
    total = interval(np.asarray(bound.total), groups)
    return Evaluation(
        bpd=total.value,
        bpd_low=total.low,
        bpd_high=total.high,
        half_width_test_set=total.half_width_test_set,
        half_width_monte_carlo=min(total.half_width_monte_carlo, total.half_width),  # a part of the whole
        prior=float(bound.prior.mean()),
        reconstruction=float(bound.reconstruction.mean()),
        diffusion=float(bound.diffusion.mean()),
        levels=test.levels,
        images=bound.total.shape[-1],
        images_in_test_set=len(test.pixels),
        distinct_images=len(np.unique(groups)),
        test_images_trained_on=copies.exact,
        test_images_near_trained_on=copies.near,
        held_out=copies.held_out,
        dataset=f"{test.identity.name}/{test.identity.split}",
        sha256=test.identity.sha256,
        published=test.identity.published,
        estimator=describe_bound(recipe.evaluation_steps, recipe.objective.kernel, recipe.objective.grid),
        draws=recipe.evaluation.draws,
        seed=recipe.seed,
        step=step,
        weights=recipe.evaluation.weights,
        arithmetic=arithmetic(),
        remarks=(*on_copies(copies, groups, len(prints)), *remarks),
    )


def check_fits(model: DiffusionModel, test: Images) -> None:
    found = (*test.pixels.shape[1:], test.levels)
    expected = (*model.shape, model.observation.levels)
    if found != expected:
        raise DataError(
            f"{test.identity.name}: images of (height, width, channels, levels) {found}; the model was trained on "
            f"{expected}. What is measured of one says nothing of the other."
        )
