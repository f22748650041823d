# SPDX-License-Identifier: Apache-2.0
"""Side information on the images that are measured, such as their labels."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Real

from vdmkit.errors import DataError, RecipeError
from vdmkit.likelihood._estimator import AbstractEstimator
from vdmkit.networks import Conditions


def check_condition(condition: Mapping[str, Real[Array | np.ndarray, "..."]] | None, count: int) -> Conditions:
    """Returns side information as arrays. Raises DataError unless it has a row for each of `count` images."""
    found = {name: np.asarray(values) for name, values in (condition or {}).items()}
    for name, values in found.items():
        if values.ndim < 1 or len(values) != count:
            raise DataError(f"condition {name!r} of shape {values.shape}: expected a row for each of {count:,} images.")
    label = found.get("label")
    if label is not None and not (np.issubdtype(label.dtype, np.integer) and (not len(label) or label.min() >= 0)):
        raise DataError(f"condition 'label' of type {label.dtype}, from {label.min()}: expected integers from 0.")
    return {name: jnp.asarray(values) for name, values in found.items()}


def rows_of(condition: Conditions, index: Int[np.ndarray, " m"] | slice) -> Conditions:
    """Returns the side information on the images with these indices, on the device."""
    return {name: jnp.asarray(np.asarray(values)[index]) for name, values in condition.items()}


def as_arguments(estimator: AbstractEstimator[Any], condition: Conditions) -> dict[str, Conditions]:
    """Returns the argument `condition` of an estimator's methods, or none for images without side information.

    Raises:
        RecipeError: the estimator has no such parameter.
    """
    if not condition:
        return {}
    for method in (type(estimator).plan, type(estimator).discretisation_error, type(estimator).__call__):
        if "condition" not in inspect.signature(method).parameters:
            raise RecipeError(
                f"estimator {type(estimator).__name__} cannot measure images given their labels: its "
                f"{method.__name__} has no parameter `condition`. Choose another estimator, or omit the labels."
            )
    return {"condition": condition}
