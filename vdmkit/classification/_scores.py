# SPDX-License-Identifier: Apache-2.0
"""Scores of a classification: accuracy, log score and calibration, each with its 95% interval."""

import math
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from vdmkit.classification._bayes import Classification
from vdmkit.classification._calibration import Calibration, Reliability, bin_of, calibration_of, edges_of

_Z = 1.959963984540054


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of n images; `log_score` is the mean of log p(label | image), in nats. All intervals are of 95%.

    Intervals are of the finite test set. Monte Carlo has its own: the images that it leaves `undecided`, by which the
    accuracy could be from `accuracy_least` to `accuracy_most`; and the `monte_carlo_bias` of the log score, which is
    below 0 because noise in the estimates makes probabilities too extreme, with its half-width (by the jackknife).
    `log_score_of_frequencies` is the score of the class frequencies alone. `overconfidence` is the mean probability of
    the chosen label minus the accuracy.
    """

    images: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    undecided: int
    accuracy_least: float
    accuracy_most: float
    log_score: float
    half_width_log_score: float
    monte_carlo_bias: float
    half_width_monte_carlo: float
    log_score_of_frequencies: float
    overconfidence: float
    half_width_overconfidence: float
    calibration: Calibration
    reliability: tuple[Reliability, ...]


def scores_of(found: Classification, labels: Int[np.ndarray, " n"]) -> ClassificationScores:
    """Returns the scores of a classification, given the label of each classified image."""
    right, images = found.predicted == labels, np.arange(len(labels))
    scores = found.log_posterior[images, labels]
    accuracy, undecided = float(right.mean()), found.undecided
    low, high = wilson(accuracy, effective(found.groups))
    bias, error = _jackknife(scores, found.left_out(labels))
    posterior = np.exp(found.log_posterior)
    confidence = posterior.max(1)
    return ClassificationScores(
        images=len(labels),
        correct=int(right.sum()),
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        undecided=int(undecided.sum()),
        accuracy_least=float((right & ~undecided).mean()),
        accuracy_most=float((right | undecided).mean()),
        log_score=float(scores.mean()),
        half_width_log_score=half_width_of(scores, found.groups),
        monte_carlo_bias=bias,
        half_width_monte_carlo=error,
        log_score_of_frequencies=float(np.log(found.frequencies)[labels].mean()),
        overconfidence=float((confidence - right).mean()),
        half_width_overconfidence=half_width_of(confidence - right, found.groups),
        calibration=calibration_of(posterior, right, found.groups),
        reliability=tuple(_reliability(confidence, right, found.groups)),
    )


def wilson(share: float, count: float) -> tuple[float, float]:
    """Returns the 95% interval of a probability of which a `share` of `count` trials was seen.

    Wilson 1927, JASA 22, 209. `count` may be a fraction: see `effective`.
    """
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def effective(groups: Int[np.ndarray, " n"]) -> float:
    """Returns the number of distinct images whose mean has the variance of these, of which some are copies."""
    sizes = np.unique(groups, return_counts=True)[1]
    return len(groups) ** 2 / float((sizes**2).sum())


def half_width_of(values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> float:
    """Returns the 95% half-width of the mean over images; NaN for a single one."""
    count = effective(groups)
    if len(values) < 2 or count <= 1:
        return math.nan
    return float(scipy.special.stdtrit(count - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(count)


def _jackknife(scores: Float[np.ndarray, " n"], left_out: Float[np.ndarray, "r n"]) -> tuple[float, float]:
    """Returns the bias of the mean score by the noise of R estimates, and the score's Monte Carlo half-width."""
    count = len(left_out)
    bias = (count - 1) * (left_out.mean(0) - scores)
    variance = (count - 1) / count * ((left_out - left_out.mean(0)) ** 2).sum(0)
    return float(bias.mean()), _Z * math.sqrt(float(variance.sum())) / len(scores)


def _reliability(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> list[Reliability]:
    """Returns the bins that have images."""
    bins, rows = bin_of(confidence), []
    for number in np.unique(bins):
        inside = bins == number
        share = float(right[inside].mean())
        ends, interval = edges_of(int(number)), wilson(share, effective(groups[inside]))
        rows.append(Reliability(*ends, int(inside.sum()), float(confidence[inside].mean()), share, *interval))
    return rows
