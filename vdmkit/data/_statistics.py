# SPDX-License-Identifier: Apache-2.0
"""Tests whether two sets of images have the same statistics; the independent unit is the image, not the pixel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Real

from vdmkit.data._pixels import Pixels
from vdmkit.data._rank_test import apart

CHANCE = 1e-6  # probability of reporting a difference between sets of the same distribution
_NAMES = ("mean level", "spread of levels", "step between neighbouring pixels", "first channel less the last")
_MOST = 2000  # images taken from a set, at random
_DISTANCE, _SHIFT = 0.75, 0.25

Statistics = Float32[np.ndarray, "_ 4"]


@dataclass(frozen=True)
class Difference:
    """One statistic of an image that differs between two sets by more than chance.

    `distance` is the Kolmogorov-Smirnov distance. A difference is `large` if the distance is at least 0.75 and the
    medians are at least a quarter of the range of levels apart.
    """

    name: str
    distance: float
    median: float
    other_median: float
    large: bool

    def __str__(self) -> str:
        same = f"around the same median, {self.median:.4g}"
        medians = f"with median {self.other_median:.4g}, that of the training images {self.median:.4g}"
        return (
            f"the {self.name} has another distribution, {same if self.median == self.other_median else medians} "
            f"(Kolmogorov-Smirnov distance {self.distance:.2f}; one this large by chance: less than {CHANCE:g})"
        )


def statistics_of(pixels: Pixels) -> Statistics:
    """Returns four statistics per image, for all images or for 2,000 drawn at random.

    They are the mean and the standard deviation of the values, the mean absolute difference of neighbours in a row,
    and the mean of the first channel minus that of the last: scale, contrast, sharpness and colour.
    """
    rows = np.sort(np.random.RandomState(0).permutation(len(pixels))[:_MOST])
    return np.stack([_of_image(pixels[row].astype(np.float64)) for row in rows]).astype(np.float32)


def may_be_statistics(found: np.ndarray, count: int) -> bool:
    """Returns whether an array may be the statistics of `count` images."""
    shape = (min(count, _MOST), len(_NAMES))
    return found.dtype == np.float32 and found.shape == shape and bool(np.isfinite(found).all())


def _of_image(image: Real[np.ndarray, "h w c"]) -> list[float]:
    step = np.abs(np.diff(image, axis=1)).mean() if image.shape[1] > 1 else 0.0
    channels = image.mean((0, 1))
    return [image.mean(), image.std(), step, channels[0] - channels[-1]]


def differences(statistics: Statistics, others: Statistics) -> list[Difference]:
    """Returns the statistics in which `others` differ from the first, large differences first.

    For sets of the same distribution it returns any with probability at most `CHANCE`: each of the four statistics is
    tested at a quarter of that (Bonferroni). Two images never differ, because no order of so few values is that rare.
    """
    spread = np.sqrt((statistics[:, 1] ** 2).mean() + statistics[:, 0].var())
    found = []
    for name, ours, theirs in zip(_NAMES, statistics.T, others.T, strict=True):
        distance, chance = apart(ours, theirs)
        if chance < CHANCE / len(_NAMES):
            medians = float(np.median(ours)), float(np.median(theirs))
            large = distance >= _DISTANCE and abs(medians[0] - medians[1]) >= _SHIFT * spread
            found.append(Difference(name, distance, *medians, bool(large)))
    return sorted(found, key=lambda one: (one.large, one.distance), reverse=True)
