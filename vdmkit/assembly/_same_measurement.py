# SPDX-License-Identifier: Apache-2.0
"""Checks that two recipes measure alike, before either does."""

import equinox as eqx

from vdmkit.assembly._measuring import build_estimator
from vdmkit.data import Images
from vdmkit.errors import DataError, RecipeError
from vdmkit.likelihood import check_same_estimator
from vdmkit.recipe import Recipe


def check_same_measurement(first: tuple[Recipe, Images], second: tuple[Recipe, Images]) -> None:
    """Raises an error unless the likelihoods of two recipes would be of the same images, with the same draws.

    Raises:
        DataError: the images or their levels are not the same.
        RecipeError: the estimators, their settings, or the number of images or the precision are not the same.
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
