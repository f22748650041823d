# SPDX-License-Identifier: Apache-2.0
r"""Bayes' rule over labels, from independent estimates of log p(image | label), and its Monte Carlo error.

    p(y | x) = f_y p(x | y) / sum_k f_k p(x | k)        f: frequencies of the classes

The R estimates for each image and label use common random numbers: estimate r of an image has the same draws for all
labels, so most of the Monte Carlo error cancels in the difference of two labels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real

from vdmkit import DiffusionModel
from vdmkit.data import AbstractPixels
from vdmkit.errors import DataError
from vdmkit.likelihood import AbstractEstimator
from vdmkit.likelihood.labels import LabelLogLikelihoods, label_log_likelihoods
from vdmkit.progress import Progress


@dataclass(frozen=True, repr=False)
class Classification:
    """Label probabilities of n images by Bayes' rule.

    Attributes:
        likelihoods: Independent estimates of log p(image | label).
        frequencies: Frequencies f of the classes; they sum to 1.
    """

    likelihoods: LabelLogLikelihoods
    frequencies: Float[np.ndarray, " labels"]

    @property
    def index(self) -> Int[np.ndarray, " n"]:
        """Increasing indices of the images in the given array."""
        return self.likelihoods.index

    @property
    def log_joint(self) -> Float[np.ndarray, "r n labels"]:
        """The R estimates of log f_y p(x | y) in nats."""
        return np.log(self.frequencies) + self.likelihoods.log_prob

    @property
    def log_posterior(self) -> Float[np.ndarray, "n labels"]:
        """log p(label | image), by the means of the estimates."""
        return scipy.special.log_softmax(self.log_joint.mean(0), axis=1)

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The most probable label of each image."""
        return self.log_joint.mean(0).argmax(1)

    @property
    def undecided(self) -> Bool[np.ndarray, " n"]:
        """Whether an image's lead over some other label is within its own 95% Monte Carlo half-width.

        The half-width is Student's, from the R estimates of this image's lead, so few estimates leave many undecided.
        """
        log_joint = self.log_joint
        count, images = len(log_joint), np.arange(log_joint.shape[1])
        leads = log_joint[:, images, self.predicted][..., None] - log_joint
        half_width = float(scipy.special.stdtrit(count - 1, 0.975)) * leads.std(0, ddof=1) / math.sqrt(count)
        near = leads.mean(0) <= half_width
        near[images, self.predicted] = False
        return near.any(1)

    def __repr__(self) -> str:
        r, n, labels = self.likelihoods.log_prob.shape
        undecided = int(self.undecided.sum())
        return f"Classification({n:,} images, {labels} labels, {r} estimates of each, {undecided:,} undecided)"


def classify(
    model: DiffusionModel,
    images: Real[Array | np.ndarray | AbstractPixels, "n h w c"],
    *,
    frequencies: Real[Array | np.ndarray, " labels"],
    key: PRNGKeyArray,
    estimator: AbstractEstimator[Any] | None = None,
    passes: int = 4,
    batch_size: int = 64,
    index: Int[np.ndarray, " m"] | None = None,
    progress: Progress = None,
) -> Classification:
    """Compares all labels for each image by Bayes' rule, as `vdmkit classify` does.

    The draws for an image are the same for all labels, and depend only on the key and its index in `images`.

    Args:
        model: A model whose network uses labels.
        images: Levels 0..levels - 1, or float32 if the model's data are continuous.
        frequencies: Frequency of each label, or its number of training images.
        key: Random key; the command uses `jax.random.key(seed)`.
        estimator: Estimator of log p(image | label); by default the variational bound in continuous time.
        passes: Number of passes of the estimator. Each gives two estimates for every image and label.
        batch_size: Number of images in a batch.
        index: Indices of the images to classify; by default all.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress._track.Meter`.

    Raises:
        DataError: The images differ from the model's in shape or levels, an index is out of range or repeated, or a
            label has no frequency.
        RecipeError: The schedule is not increasing, or an argument is invalid.
        UntrustedError: An estimate is not a likelihood.
    """
    normalized = normalize(np.asarray(frequencies))
    likelihoods = label_log_likelihoods(
        model,
        images,
        labels=len(normalized),
        key=key,
        estimator=estimator,
        passes=passes,
        batch_size=batch_size,
        index=index,
        progress=progress,
    )
    return Classification(likelihoods, normalized)


def normalize(frequencies: Real[np.ndarray, " labels"]) -> Float[np.ndarray, " labels"]:
    """Scales frequencies so that they sum to 1. Raises DataError unless all are positive numbers."""
    values = np.asarray(frequencies, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise DataError(f"frequencies of shape {values.shape}: expected one for each of at least 2 labels.")
    if not (valid := np.isfinite(values) & (values > 0)).all():
        label = int(np.flatnonzero(~valid)[0])
        raise DataError(
            f"label {label} has frequency {values[label]:g}: Bayes' rule needs training images of every label."
        )
    return values / values.sum()
