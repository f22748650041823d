# SPDX-License-Identifier: Apache-2.0
"""Checks of what Python gives: no file is written that its readers refuse."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from vdmkit.arguments import MAX_STEPS
from vdmkit.errors import DataError, RecipeError
from vdmkit_codec.compression import Profile

_RANGES = {
    "steps": (1, MAX_STEPS),
    "group": (1, 65535),
    "chunk": (1, 65535),
    "seed": (0, 2**64 - 1),
    "max_pixels": (1, 2**63 - 1),
    "jobs": (1, 1024),
}


def check_settings(profile: str = "portable", **numbers: Any) -> None:
    """Raises RecipeError if there is no such profile, or a number is out of its range. Steps may be None."""
    if profile not in get_args(Profile):
        raise RecipeError(f"profile = {profile!r}: expected one of {', '.join(get_args(Profile))}.")
    for name, value in numbers.items():
        low, high = _RANGES[name]
        if name == "steps" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise RecipeError(f"{name} = {value!r}: expected a whole number from {low} to {high:,}.")


def check_images(images: np.ndarray, names: Sequence[str] | None, shape: tuple[int, int, int]) -> None:
    """Raises DataError if the images are not uint8 of this shape, or the names are not one for each."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise DataError(
            f"images: {images.dtype} {images.shape}; expected uint8 (n, {expected}), as the model's images."
        )
    if names is None:
        return
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise DataError("names: expected a list of texts, one for each image.")
    if len(names) != len(images):
        raise DataError(f"{len(names)} names for {len(images)} images. Give one for each, or none.")
