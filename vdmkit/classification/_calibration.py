# SPDX-License-Identifier: Apache-2.0
"""Calibration: whether labels of probability p are right in a share p of the images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

_BINS, _DRAWS = 10, 1000


@dataclass(frozen=True)
class Reliability:
    """The images whose confidence is from `low` to `high`: their number, mean confidence, and accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error in ten bins, with its 95% interval over images.

    `if_calibrated` is what it would be at most for 95 of 100 sets of as many images if the probabilities were right:
    the error of finitely many images alone is above 0.
    """

    error: float
    low: float
    high: float
    if_calibrated: float


def bin_of(confidence: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Returns the bin of each confidence, one of ten of equal width."""
    return np.minimum((confidence * _BINS).astype(int), _BINS - 1)


def edges_of(number: int) -> tuple[float, float]:
    """Returns the ends of a bin."""
    return number / _BINS, (number + 1) / _BINS


def calibration_of(
    posterior: Float[np.ndarray, "n labels"], correct: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> Calibration:
    """Returns the calibration of the most probable labels.

    The interval is by the percentiles of the error's bootstrap over distinct images, moved by the bootstrap's bias.

    Args:
        posterior: Probabilities of the labels.
        correct: Whether the most probable label is right.
        groups: A number for each image, the same for copies of one image.
    """
    confidence, rng = posterior.max(1), np.random.default_rng(0)
    gaps, bins = confidence - correct, bin_of(confidence)
    value, resampled = _error(gaps, bins), []
    for _ in range(_DRAWS):
        times = np.bincount(rng.integers(0, groups.max() + 1, groups.max() + 1), minlength=groups.max() + 1)[groups]
        resampled.append(_error(gaps * times, bins) * len(gaps) / max(times.sum(), 1))
    low, high = np.quantile(resampled, [0.025, 0.975]) - (np.mean(resampled) - value)
    drawn = rng.random((_DRAWS, len(confidence))) < confidence
    expected = np.quantile([_error(confidence - right, bins) for right in drawn], 0.95)
    return Calibration(value, max(float(low), 0.0), max(float(high), value), float(expected))


def _error(gaps: Float[np.ndarray, " n"], bins: Int[np.ndarray, " n"]) -> float:
    """Returns sum_b |sum of the gaps in bin b| / n, the mean gap of a bin weighted by its share of the images."""
    return float(abs(np.bincount(bins, gaps, minlength=_BINS)).sum()) / len(gaps)
