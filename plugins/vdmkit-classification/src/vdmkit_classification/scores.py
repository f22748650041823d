# SPDX-License-Identifier: Apache-2.0
"""Accuracy, log score and calibration with 95% intervals, and comparisons with other classifiers."""

import math
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int, Real

from vdmkit.data import Pixels
from vdmkit.toy_data import AbstractDistribution
from vdmkit_classification.bayes import Classification

_Z = 1.959963984540054
_BINS, _BOOTSTRAP_DRAWS = 10, 1000


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error in ten bins, with its 95% interval over images.

    With finitely many images the error is above 0 even for correct probabilities; `if_calibrated` is the 95% quantile
    of the error of a test set of this size in that case.
    """

    error: float
    low: float
    high: float
    if_calibrated: float


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
class ClassificationScores:
    """Scores of n images; `log_score` is the mean of log p(label | image), in nats. All intervals are of 95%.

    Intervals are for the finite test set. Monte Carlo error is separate: `undecided` images leave the accuracy between
    `accuracy_least` and `accuracy_most`, and the `monte_carlo_bias` of the log score is below 0 because noise in the
    estimates makes probabilities too extreme. Its half-width comes from the jackknife. `log_score_of_frequencies` is
    the score of the class frequencies alone. `overconfidence` is the mean probability of the chosen label minus the
    accuracy.
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


def score(found: Classification, labels: Int[np.ndarray, " n"]) -> ClassificationScores:
    """Scores a classification, given the label of each classified image."""
    right, images, groups = found.predicted == labels, np.arange(len(labels)), found.likelihoods.groups
    scores = found.log_posterior[images, labels]
    accuracy, undecided = float(right.mean()), found.undecided
    low, high = wilson(accuracy, effective_count(groups))
    bias, half_width = _jackknife(found, labels)
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
        half_width_log_score=half_width_of_mean(scores, groups),
        monte_carlo_bias=bias,
        half_width_monte_carlo=half_width,
        log_score_of_frequencies=float(np.log(found.frequencies)[labels].mean()),
        overconfidence=float((confidence - right).mean()),
        half_width_overconfidence=half_width_of_mean(confidence - right, groups),
        calibration=_calibration(posterior, right, groups),
        reliability=tuple(_reliability(confidence, right, groups)),
    )


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95% interval of a probability, given the `share` of successes in `count` trials.

    Wilson 1927, JASA 22, 209. `count` may be a fraction: see `effective_count`.
    """
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def effective_count(groups: Int[np.ndarray, " n"]) -> float:
    """Number of distinct images whose mean would have the same variance as the mean of these, some of them copies."""
    sizes = np.unique(groups, return_counts=True)[1]
    return len(groups) ** 2 / float((sizes**2).sum())


def half_width_of_mean(values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> float:
    """The 95% half-width of the mean over images; NaN for a single one."""
    count = effective_count(groups)
    if len(values) < 2 or count <= 1:
        return math.nan
    return float(scipy.special.stdtrit(count - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(count)


def _jackknife(found: Classification, labels: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """Bias of the mean log score due to the noise of R estimates, and the score's Monte Carlo half-width."""
    log_joint, images = found.log_joint, np.arange(len(labels))
    count, scores = len(log_joint), found.log_posterior[images, labels]
    others = (log_joint.sum(0) - log_joint) / (count - 1)
    left_out = scipy.special.log_softmax(others, axis=2)[:, images, labels]
    bias = (count - 1) * (left_out.mean(0) - scores)
    variance = (count - 1) / count * ((left_out - left_out.mean(0)) ** 2).sum(0)
    return float(bias.mean()), _Z * math.sqrt(float(variance.sum())) / len(scores)


def _bins(confidence: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    return np.minimum((confidence * _BINS).astype(int), _BINS - 1)


def _calibration(
    posterior: Float[np.ndarray, "n labels"], correct: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> Calibration:
    """Calibration of the most probable labels.

    The interval has percentiles of a bootstrap over distinct images, corrected for the bootstrap's bias.
    """
    confidence, rng = posterior.max(1), np.random.default_rng(0)
    gaps, bins = confidence - correct, _bins(confidence)
    value, resampled = _calibration_error(gaps, bins), []
    for _ in range(_BOOTSTRAP_DRAWS):
        times = np.bincount(rng.integers(0, groups.max() + 1, groups.max() + 1), minlength=groups.max() + 1)[groups]
        resampled.append(_calibration_error(gaps * times, bins) * len(gaps) / max(times.sum(), 1))
    low, high = np.quantile(resampled, [0.025, 0.975]) - (np.mean(resampled) - value)
    drawn = rng.random((_BOOTSTRAP_DRAWS, len(confidence))) < confidence
    expected = np.quantile([_calibration_error(confidence - right, bins) for right in drawn], 0.95)
    return Calibration(value, max(float(low), 0.0), max(float(high), value), float(expected))


def _calibration_error(gaps: Float[np.ndarray, " n"], bins: Int[np.ndarray, " n"]) -> float:
    """sum_b |sum of the gaps in bin b| / n: the mean gap of a bin, weighted by its share of the images."""
    return float(abs(np.bincount(bins, gaps, minlength=_BINS)).sum()) / len(gaps)


def _reliability(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> list[Reliability]:
    """The bins that are not empty."""
    bins, rows = _bins(confidence), []
    for number in np.unique(bins):
        inside = bins == number
        accuracy = float(right[inside].mean())
        low, high = wilson(accuracy, effective_count(groups[inside]))
        ends = int(number) / _BINS, (int(number) + 1) / _BINS
        rows.append(Reliability(*ends, int(inside.sum()), float(confidence[inside].mean()), accuracy, low, high))
    return rows


@dataclass(frozen=True)
class Baseline:
    """Scores of a baseline classifier on the same images, with 95% intervals.

    `only_model_right` and `only_baseline_right` count the images that only one of the two classifies correctly;
    `p_value` is that of McNemar's exact test of equal accuracy.
    """

    name: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    log_score: float
    half_width_log_score: float
    only_model_right: int
    only_baseline_right: int
    p_value: float


def compare_with_baseline(
    name: str, log_posterior: Float[np.ndarray, "n labels"], found: Classification, labels: Int[np.ndarray, " n"]
) -> Baseline:
    """Compares a classification with a baseline's log probabilities of the labels of the same images."""
    right, model_right, groups = log_posterior.argmax(1) == labels, found.predicted == labels, found.likelihoods.groups
    scores = log_posterior[np.arange(len(labels)), labels]
    only_model, only_baseline = int((model_right & ~right).sum()), int((right & ~model_right).sum())
    only_one, accuracy = only_model + only_baseline, float(right.mean())
    low, high = wilson(accuracy, effective_count(groups))
    return Baseline(
        name=name,
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        log_score=float(scores.mean()),
        half_width_log_score=half_width_of_mean(scores, groups),
        only_model_right=only_model,
        only_baseline_right=only_baseline,
        p_value=float(scipy.stats.binomtest(only_model, only_one).pvalue) if only_one else 1.0,
    )


def logistic_regression(
    train: Real[np.ndarray, "m h w c"], labels: Int[np.ndarray, " m"], test: Real[np.ndarray, "n h w c"], levels: int
) -> Float[np.ndarray, "n labels"]:
    """Log probabilities of the labels by scikit-learn's logistic regression on pixels from 0 to 1, with C = 1.

    Every label must occur in `labels`.
    """
    from sklearn.linear_model import LogisticRegression

    scale = max(levels - 1, 1)
    fitted = LogisticRegression(max_iter=2000).fit(train.reshape(len(train), -1) / scale, labels)
    return np.asarray(fitted.predict_log_proba(test.reshape(len(test), -1) / scale))


@dataclass(frozen=True)
class Reference:
    """Scores of Bayes' rule by the exact likelihoods, and the model's differences from it.

    `difference` is the largest difference in a probability; `other_decisions` counts the images with a different label.
    """

    accuracy: float
    log_score: float
    difference: float
    other_decisions: int


def compare_with_reference(
    distribution: AbstractDistribution, pixels: Pixels, found: Classification, labels: Int[np.ndarray, " n"]
) -> Reference | None:
    """Compares a classification with the exact one of a mixture whose components are the labels.

    Args:
        distribution: The mixture.
        pixels: The classified images.
        found: The model's classification.
        labels: The label of each image.

    Returns:
        None if a component's likelihood is unknown.
    """
    parts = [distribution.component(label) for label in range(len(found.frequencies))]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    nats = np.stack([part.nats(pixels[:]) for part in known], axis=1)
    exact = scipy.special.log_softmax(np.log(found.frequencies) - nats, axis=1)
    decided = exact.argmax(1)
    return Reference(
        accuracy=float((decided == labels).mean()),
        log_score=float(exact[np.arange(len(labels)), labels].mean()),
        difference=float(abs(np.exp(exact) - np.exp(found.log_posterior)).max()),
        other_decisions=int((decided != found.predicted).sum()),
    )
