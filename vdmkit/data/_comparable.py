# SPDX-License-Identifier: Apache-2.0
"""Checks that images are comparable with a model's training images, beyond shape and number of levels."""

import re

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Real

from vdmkit.data._copies import hashes_of
from vdmkit.data._pixels import AbstractPixels, blocks, select
from vdmkit.data._source import Images
from vdmkit.data._statistics import differences, statistics_of
from vdmkit.data._trained_on import TrainedOn
from vdmkit.errors import DataError
from vdmkit.model import DiffusionModel

_RELEASE = re.compile(r"imagenet\d+_(old|new)")
_NARROW = 8


def reasons_against(known: TrainedOn, test: Images) -> tuple[list[str], list[str]]:
    """Returns reasons why a likelihood of `test` is not valid for the model, and remarks to print beside it.

    Args:
        known: What is known of the model's training images.
        test: The images to measure.
    """
    trained, statistics = known.identity, known.statistics
    if trained is None:
        return [], []
    reasons = [*_of_release(trained["name"], test.identity.name), *_of_scale(trained["low"], trained["high"], test)]
    # The statistical test assumes independent images, so copies of an image count once.
    distinct = np.sort(np.unique(hashes_of(test), return_index=True)[1])
    found = [] if statistics is None else differences(statistics, statistics_of(select(test.pixels, distinct)))
    large = [f"the test images are unlike the training images: {one}." for one in found[:1] if one.large]
    small = [f"The test images differ a little from the training images: {one}." for one in found[:1] if not one.large]
    return [*reasons, *large], small


def check_comparable(known: TrainedOn, test: Images) -> tuple[str, ...]:
    """Raises DataError with the reasons of `reasons_against`; returns the remarks to print beside a likelihood."""
    reasons, remarks = reasons_against(known, test)
    if reasons:
        raise DataError(f"{test.identity.name}: {' '.join(reasons)}")
    return tuple(remarks)


def _of_release(trained: str, tested: str) -> list[str]:
    """Compares the releases of ImageNet; their downsampling differs, and the likelihood by a quarter of a bit/dim."""
    found = [_RELEASE.fullmatch(name) for name in (trained, tested)]
    if None in found or len({match[1] for match in found if match}) == 1:
        return []
    return [f"the model was trained on {trained}, and these images are {tested}: they are not comparable."]


def _of_scale(low: float, high: float, test: Images) -> list[str]:
    """Compares the ranges of values: one 8 times narrower, or exceeding the other by half its width, is refused."""
    found, span = test.identity, high - low
    if low - span / 2 <= found.low and found.high <= high + span / 2 and found.high - found.low >= span / _NARROW:
        return []
    return [
        f"values of the test images go from {found.low:g} to {found.high:g}, and those that the model was trained on "
        f"from {low:g} to {high:g}: they are of another scale."
    ]


def check_pixels(model: DiffusionModel, pixels: Real[Array | np.ndarray | AbstractPixels, "n h w c"]) -> None:
    """Raises DataError if the images differ from the model's in shape, type or range; under `jax.jit`, not in range."""
    levels, dtype = model.observation.levels, np.uint8 if model.observation.levels else np.float32
    if isinstance(pixels.dtype, np.dtype) and pixels.dtype == object:
        raise DataError('images: expected an array of shape (n, h, w, c), such as `run.data("test").pixels`.')
    if pixels.ndim != 4 or pixels.shape[1:] != model.shape:
        raise DataError(f"images of shape {pixels.shape}: expected (n, {', '.join(map(str, model.shape))}).")
    if pixels.dtype != dtype:
        advice = f" Give the levels 0..{levels - 1} as integers: images.astype(numpy.uint8)." if levels else ""
        raise DataError(f"images of {pixels.dtype}: expected {dtype.__name__}, for {levels or 'no'} levels.{advice}")
    if isinstance(pixels, Tracer):
        return
    parts = blocks(pixels) if isinstance(pixels, AbstractPixels) else [pixels]
    if 0 < levels < 256 and len(pixels) and (highest := max(int(part.max()) for part in parts)) >= levels:
        raise DataError(f"a pixel is {highest}: expected 0..{levels - 1}.")


def check_fits(model: DiffusionModel, test: Images) -> None:
    """Raises DataError if the images differ from the model's in shape or number of levels."""
    check_like(test, model.shape, model.observation.levels)


def check_like(images: Images, shape: tuple[int, ...], levels: int) -> None:
    """Raises DataError if the images differ in shape or number of levels from those that a model was made for."""
    found, expected = (*images.pixels.shape[1:], images.levels), (*shape, levels)
    if found != expected:
        raise DataError(
            f"{images.identity.name}: images of (height, width, channels, levels) {found}; the model was trained on "
            f"{expected}. The model has no likelihood for them."
        )
