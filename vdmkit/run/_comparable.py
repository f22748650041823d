# SPDX-License-Identifier: Apache-2.0
"""Whether images are of the kind that a model was trained on, beyond their shape and number of levels."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vdmkit.data import Images, Statistics, differences, image_hashes, statistics_of
from vdmkit.errors import DataError

_RELEASE = re.compile(r"imagenet\d+_(old|new)")
_NARROW = 8


def reasons_against(
    trained: Mapping[str, Any] | None, test: Images, statistics: Statistics | None = None
) -> tuple[list[str], list[str]]:
    """Why a likelihood of `test` says nothing of a model, in sentences; and what to say beside it if it does.

    Args:
        trained: The identity of the training images, as in a manifest; None if it is not known.
        statistics: Statistics of their levels; None if they are not known.
    """
    if trained is None:
        return [], []
    reasons = [*_of_release(trained["name"], test.identity.name), *_of_scale(trained["low"], trained["high"], test)]
    # Copies are no more evidence than one image, and the test takes images for independent.
    distinct = np.unique(image_hashes(test.pixels), return_index=True)[1]
    found = [] if statistics is None else differences(statistics, statistics_of(test.pixels[np.sort(distinct)]))
    large = [f"the test images are unlike the training images: {one}." for one in found[:1] if one.large]
    small = [f"The test images differ a little from the training images: {one}." for one in found[:1] if not one.large]
    return [*reasons, *large], small


def check_comparable(
    trained: Mapping[str, Any] | None, test: Images, statistics: Statistics | None = None
) -> tuple[str, ...]:
    """Raises DataError with those reasons; returns what is to be said beside a likelihood."""
    reasons, remarks = reasons_against(trained, test, statistics)
    if reasons:
        raise DataError(f"{test.identity.name}: {' '.join(reasons)}")
    return tuple(remarks)


def _of_release(trained: str, tested: str) -> list[str]:
    """ImageNet's two releases differ in how they were made smaller, and by a quarter of a bit in likelihood."""
    found = [_RELEASE.fullmatch(name) for name in (trained, tested)]
    if None in found or len({match[1] for match in found if match}) == 1:
        return []
    return [f"the model was trained on {trained}, and these images are {tested}: they are not comparable."]


def _of_scale(low: float, high: float, test: Images) -> list[str]:
    """A range an eighth as wide, or that reaches out of the other by half its width, is no accident of the images."""
    found, span = test.identity, high - low
    if low - span / 2 <= found.low and found.high <= high + span / 2 and found.high - found.low >= span / _NARROW:
        return []
    return [
        f"values of the test images go from {found.low:g} to {found.high:g}, and those that the model was trained on "
        f"from {low:g} to {high:g}: they are of another scale."
    ]
