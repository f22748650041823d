# SPDX-License-Identifier: Apache-2.0
"""Plans the estimates of two models whose difference is wanted: both share their draws."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, Real

from vdmkit.data import AbstractPixels, check_pixels, select
from vdmkit.devices import precisely
from vdmkit.likelihood._condition import as_arguments, check_condition, rows_of
from vdmkit.likelihood._estimator import AbstractEstimator
from vdmkit.likelihood._interval import check_count, check_index
from vdmkit.likelihood._variational import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.noise import check_increasing
from vdmkit.randomness import fold_purpose

Told = Mapping[str, Real[Array | np.ndarray, "..."]] | None


@precisely
def plan_pair(
    first: DiffusionModel,
    second: DiffusionModel,
    images: Real[Array | np.ndarray | AbstractPixels, "n h w c"],
    *,
    key: PRNGKeyArray,
    estimator: AbstractEstimator[Any] | None = None,
    conditions: tuple[Told, Told] = (None, None),
    precision: float = 0.0,
    index: Int[np.ndarray, " m"] | None = None,
) -> tuple[Any, Any]:
    """Returns a plan for each of two calls of `log_likelihood`, with which `compare` has the smallest error.

    Both calls need the images, key, estimator and index that are given here. Each remains an estimate of its own
    model, with an interval that is perhaps wider than that of the model alone. The plans of a model and itself are
    the same, and so are then the estimates.

    Raises:
        DataError: as `log_likelihood`, for either model.
        RecipeError: as `log_likelihood`, for either model.
    """
    pixels = images if isinstance(images, AbstractPixels) else np.asarray(images)
    estimator = estimator or VariationalBound()
    for model in (first, second):
        check_pixels(model, pixels)
        check_increasing(model.schedule)
    index = np.arange(len(pixels)) if index is None else check_index(np.asarray(index), len(pixels))
    chosen = select(pixels, index)
    check_count(chosen)
    one, other = (rows_of(check_condition(told, len(pixels)), index) for told in conditions)
    for told in (one, other):
        as_arguments(estimator, told)
    nats = precision * first.dimensions * math.log(2)
    of_plan = fold_purpose(key, "plan_pair")
    return estimator.plan_pair((first, second), chosen, precision=nats, key=of_plan, conditions=(one, other))
