# SPDX-License-Identifier: Apache-2.0
"""Scores of classifications against closed forms."""

import numpy as np
import pytest
from scipy.stats import binomtest
from vdmkit_classification import Classification, score
from vdmkit_classification.scores import compare_with_baseline, wilson

from vdmkit.devices import Arithmetic
from vdmkit.likelihood.labels import LabelLogLikelihoods


def classification(log_joint: np.ndarray, groups: np.ndarray | None = None) -> Classification:
    """A classification with these estimates, (R, n, labels)."""
    _, n, labels = log_joint.shape
    share, index = np.full(labels, 1 / labels), np.arange(n)
    groups = index if groups is None else groups
    arithmetic = Arithmetic("float32", "highest", "cpu")
    likelihoods = LabelLogLikelihoods(log_joint - np.log(share), index, groups, 0, 0.0, None, "", arithmetic)
    return Classification(likelihoods, share)


def of_probabilities(posterior: list[list[float]]) -> Classification:
    """A classification without Monte Carlo error."""
    return classification(np.log([posterior] * 2))


@pytest.mark.parametrize(("right", "count"), [(0, 7), (290, 297), (5, 5)])
def test_intervals_of_the_accuracy_are_wilsons(right, count):
    """The interval would not be Wilson's, which is right also for no error in few images."""
    expected = binomtest(right, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(right / count, float(count)), (expected.low, expected.high), atol=1e-12)


def test_scores_of_a_few_images():
    """A score would be another than its definition, by hand."""
    found = of_probabilities([[0.92, 0.08], [0.94, 0.06], [0.3, 0.7], [0.4, 0.6]])
    scores = score(found, np.array([0, 1, 1, 1]))
    assert (scores.correct, scores.accuracy, scores.undecided) == (3, 0.75, 0)
    np.testing.assert_allclose(scores.log_score, np.log([0.92, 0.06, 0.7, 0.6]).mean(), rtol=1e-12)
    np.testing.assert_allclose(scores.log_score_of_frequencies, np.log(0.5), rtol=1e-12)
    np.testing.assert_allclose(scores.overconfidence, (0.92 + 0.94 + 0.7 + 0.6) / 4 - 0.75, rtol=1e-12)
    # bins 0.9 to 1: two images, gaps -0.08 and 0.94; 0.7 to 0.8 and 0.6 to 0.7 one each, -0.3 and -0.4
    np.testing.assert_allclose(scores.calibration.error, (0.86 + 0.3 + 0.4) / 4, rtol=1e-12)
    assert [(row.low, row.images, row.accuracy) for row in scores.reliability] == [
        (0.6, 1, 1),
        (0.7, 1, 1),
        (0.9, 2, 0.5),
    ]
    assert (scores.monte_carlo_bias, scores.half_width_monte_carlo) == (0, 0)


def test_right_probabilities_are_called_calibrated_and_others_are_not():
    """Right probabilities would be called wrong for the error of a finite test set, or too sure ones not be found."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 3))
    posterior = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((2000, 1)) > posterior.cumsum(1)).sum(1)
    right = score(classification(np.stack([logits] * 2)), labels)
    assert right.calibration.error <= right.calibration.if_calibrated
    assert abs(right.overconfidence) <= right.half_width_overconfidence
    sure = score(classification(np.stack([3 * logits] * 2)), labels)
    assert sure.calibration.low > sure.calibration.if_calibrated
    assert sure.overconfidence > sure.half_width_overconfidence
    assert sure.accuracy == right.accuracy


def test_the_bias_of_monte_carlo_is_found():
    """The log score would be lower by the estimates' noise, and nothing say by how much.

    Noise of variance v in the log odds of p lowers E log p by v p (1 - p) / 2 + O(v^2); n = 20,000 images of 8
    estimates know it to 1%.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(8, 20_000, 2)) * 0.5
    scores = score(classification(np.log([0.7, 0.3]) + noise), np.zeros(20_000, int))
    expected = -(2 * 0.25 / 8) * 0.7 * 0.3 / 2
    np.testing.assert_allclose(scores.monte_carlo_bias, expected, rtol=0.1)
    np.testing.assert_allclose(scores.log_score - np.log(0.7), expected, atol=2 * scores.half_width_monte_carlo)


def test_images_are_undecided_as_often_as_their_interval_says():
    """An image would be called decided whose labels are equally probable: at most 5% of them by a 95% interval."""
    rng = np.random.default_rng(0)
    found = classification(rng.normal(size=(4, 20_000, 2)))
    # the larger mean is chosen, so the lead is beyond either end of the interval in 5% of the images
    np.testing.assert_allclose((~found.undecided).mean(), 0.05, atol=0.006)  # 4 standard errors
    apart = classification(rng.normal(size=(8, 100, 2)) + np.array([100.0, 0.0]))
    assert not apart.undecided.any()


def test_copies_of_an_image_count_once():
    """A test set would have a smaller interval if its images were repeated."""
    rng = np.random.default_rng(0)
    log_joint, labels = rng.normal(size=(2, 40, 3)), rng.integers(0, 3, 40)
    once = score(classification(log_joint), labels)
    groups = np.repeat(np.arange(40), 2)
    twice = score(classification(np.repeat(log_joint, 2, axis=1), groups), np.repeat(labels, 2))
    assert (once.accuracy_low, once.accuracy_high) == (twice.accuracy_low, twice.accuracy_high)
    np.testing.assert_allclose(twice.half_width_log_score, once.half_width_log_score, rtol=0.02)


def test_another_classifier_is_compared_on_the_same_images():
    """The images that only one of both gets right would be counted for the other."""
    found = of_probabilities([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    other = np.log([[0.6, 0.4], [0.1, 0.9], [0.4, 0.6], [0.8, 0.2]])
    baseline = compare_with_baseline("other", other, found, np.array([0, 0, 1, 0]))
    assert (baseline.only_model_right, baseline.only_baseline_right, baseline.accuracy) == (1, 1, 0.75)
    np.testing.assert_allclose(baseline.log_score, np.log([0.6, 0.1, 0.6, 0.8]).mean(), rtol=1e-12)
    assert baseline.p_value == 1.0
