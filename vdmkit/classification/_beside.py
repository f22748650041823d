# SPDX-License-Identifier: Apache-2.0
"""Classifiers beside the model's: Bayes' rule by the exact likelihoods, and logistic regression on the pixels."""

from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float, Int, Real

from vdmkit.classification._bayes import Classification
from vdmkit.classification._scores import effective, half_width_of, wilson
from vdmkit.data.sources import Pixels
from vdmkit.toy_data import AbstractDistribution

_ITERATIONS = 2000


@dataclass(frozen=True)
class Beside:
    """Scores of another classifier on the same images, with 95% intervals, and where only one of both is right.

    `p_value` is that of McNemar's exact test, of equal accuracy.
    """

    name: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    log_score: float
    half_width_log_score: float
    only_model_right: int
    only_other_right: int
    p_value: float


@dataclass(frozen=True)
class Exactly:
    """Scores of Bayes' rule by the exact likelihoods, and the model's differences from it.

    `difference` is the largest of a probability, and `other_decisions` counts the images with another label.
    """

    accuracy: float
    log_score: float
    difference: float
    other_decisions: int


def compare_with(
    name: str, log_posterior: Float[np.ndarray, "n labels"], found: Classification, labels: Int[np.ndarray, " n"]
) -> Beside:
    """Returns the scores of another classifier's log probabilities of the labels of the same images."""
    right, models = log_posterior.argmax(1) == labels, found.predicted == labels
    scores, only = (
        log_posterior[np.arange(len(labels)), labels],
        (int((models & ~right).sum()), int((right & ~models).sum())),
    )
    share = float(right.mean())
    return Beside(
        name,
        share,
        *wilson(share, effective(found.groups)),
        float(scores.mean()),
        half_width_of(scores, found.groups),
        *only,
        float(scipy.stats.binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0,
    )


def compare_with_exact(
    distribution: AbstractDistribution,
    pixels: Pixels,
    found: Classification,
    labels: Int[np.ndarray, " n"],
) -> Exactly | None:
    """Returns the scores of Bayes' rule for a mixture whose components are the labels; None if one is not known.

    Args:
        distribution: The mixture.
        pixels: The classified images.
        found: The model's classification.
        labels: The label of each image.
    """
    parts = [distribution.component(label) for label in range(len(found.frequencies))]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    nats = np.stack([part.nats(pixels[:]) for part in known], axis=1)
    exact = scipy.special.log_softmax(np.log(found.frequencies) - nats, axis=1)
    decided = exact.argmax(1)
    return Exactly(
        float((decided == labels).mean()),
        float(exact[np.arange(len(labels)), labels].mean()),
        float(abs(np.exp(exact) - np.exp(found.log_posterior)).max()),
        int((decided != found.predicted).sum()),
    )


def logistic_regression(
    train: Real[np.ndarray, "m h w c"], labels: Int[np.ndarray, " m"], test: Real[np.ndarray, "n h w c"], levels: int
) -> Float[np.ndarray, "n labels"]:
    """Returns log probabilities of the labels by scikit-learn's logistic regression on pixels from 0 to 1, with C = 1.

    Every label must occur in `labels`.
    """
    from sklearn.linear_model import LogisticRegression

    scale = max(levels - 1, 1)
    fitted = LogisticRegression(max_iter=_ITERATIONS).fit(train.reshape(len(train), -1) / scale, labels)
    return np.asarray(fitted.predict_log_proba(test.reshape(len(test), -1) / scale))
