# SPDX-License-Identifier: Apache-2.0
r"""Bayes' rule over labels, from independent estimates of log p(image | label), and its Monte Carlo error.

    p(y | x) = f_y p(x | y) / sum_k f_k p(x | k)        f: frequencies of the classes

R estimates of every image and label are made with common random numbers: estimate r of an image has the same draws for
all labels, so that the error of a difference of two labels is that of what differs between them.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from vdmkit.devices import Arithmetic
from vdmkit.likelihood.ode import SolverError


@dataclass(frozen=True, repr=False)
class Classification:
    """Estimates of log f_y p(x | y) in nats of n images for every label y, R independent ones of each.

    Attributes:
        log_joint: The estimates, (R, n, labels).
        frequencies: Frequencies f of the classes; they sum to 1.
        index: Rising indices of the images in the given array.
        groups: A number for each image, the same for copies of one image.
        total_evaluations: Evaluations of the network, including those of planning and of the solver's error.
        evaluations_per_label: Evaluations for an image and a label, all estimates together.
        solver: The error of a solver, measured on a few images; None without a solver.
        estimator: Description of the estimator.
        arithmetic: Precision and devices of the measurement.
    """

    log_joint: Float[np.ndarray, "r n labels"]
    frequencies: Float[np.ndarray, " labels"]
    index: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    total_evaluations: int
    evaluations_per_label: float
    solver: SolverError | None
    estimator: str
    arithmetic: Arithmetic

    @property
    def log_posterior(self) -> Float[np.ndarray, "n labels"]:
        """Returns log p(label | image) by the means of the estimates."""
        return scipy.special.log_softmax(self.log_joint.mean(0), axis=1)

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """Returns the most probable label of each image."""
        return self.log_joint.mean(0).argmax(1)

    @property
    def undecided(self) -> Bool[np.ndarray, " n"]:
        """Returns for which images the lead over another label is within its own 95% Monte Carlo half-width.

        The half-width is Student's, from the R estimates of this image's lead, so few estimates leave many undecided.
        """
        count = len(self.log_joint)
        leads = self.log_joint[:, np.arange(len(self.index)), self.predicted][..., None] - self.log_joint
        half_width = float(scipy.special.stdtrit(count - 1, 0.975)) * leads.std(0, ddof=1) / math.sqrt(count)
        near = leads.mean(0) <= half_width
        near[np.arange(len(near)), self.predicted] = False
        return near.any(1)

    def left_out(self, labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "r n"]:
        """Returns the log probability of each image's label without one of the R estimates, for the jackknife."""
        count = len(self.log_joint)
        others = (self.log_joint.sum(0) - self.log_joint) / (count - 1)
        return scipy.special.log_softmax(others, axis=2)[:, np.arange(len(labels)), labels]

    def __repr__(self) -> str:
        r, n, labels = self.log_joint.shape
        undecided = int(self.undecided.sum())
        return f"Classification({n:,} images, {labels} labels, {r} estimates of each, {undecided:,} undecided)"
