# SPDX-License-Identifier: Apache-2.0
"""Comparison of a likelihood with the exact one, if the distribution of the images is known; bits per dimension."""

from typing import Any

import numpy as np
from jaxtyping import Float

from vdmkit.data import Pixels
from vdmkit.distribution import Exact, GaussianMixture, LevelMixture
from vdmkit.kernel import GaussianKernel
from vdmkit.likelihood._doubt import depth_beyond_doubt
from vdmkit.likelihood._estimator import AbstractEstimator
from vdmkit.likelihood._gaussian import gaussian_terms
from vdmkit.likelihood._importance import ImportanceWeighted
from vdmkit.likelihood._quadrature import exact_terms, has_known_ends, terms_of_images
from vdmkit.likelihood._variational import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.objective import bits_per_dim

_NATS = 20.0
_FALSE_ALARM = 9e-7  # share of Monte Carlo; with exp(-20) for the images it is one in a million


def impossible_below(
    exact: Float[np.ndarray, " m"], nats: Float[np.ndarray, "2 m"], estimator: AbstractEstimator[Any]
) -> float:
    """Returns the mean in nats per image below which these estimates cannot be likelihoods.

    It is minus infinity if the Monte Carlo error is too large to decide.

    For images drawn from P, sum log(p / P) exceeds 20 nats with probability exp(-20) at most, for any normalised p that
    does not depend on the images (Markov's inequality). The estimates bound -log p in expectation only, and their
    errors are skewed: see `depth_beyond_doubt`. Importance-weighted bounds need no allowance for that, because
    exp(-nats) has at most the expectation p and Markov's inequality applies directly; nor do estimates without Monte
    Carlo error.

    Args:
        exact: -log P of each image.
        nats: Two independent estimates of a bound on -log p for each.
        estimator: The estimator of `nats`.
    """
    without_allowance = isinstance(estimator, ImportanceWeighted) or bool((nats[0] == nats[1]).all())
    depth = 0.0 if without_allowance else depth_beyond_doubt((nats - exact).ravel(), _FALSE_ALARM)
    return float(exact.mean()) - _NATS / len(exact) - depth


def below_the_truth(value: float, exact: float, lowest: float, levels: int) -> list[str]:
    """Returns a reason not to trust a value in bits/dim that is less than the `lowest` possible one."""
    if not value < lowest:
        return []
    failure = "these probabilities do not sum to 1" if levels else "this density does not integrate to 1"
    return [
        f"{value:.4f} bits/dim is impossible: the distribution that these images were drawn from gives them "
        f"{exact:.4f}, so {failure}."
    ]


def exact_bound(model: DiffusionModel, images: Pixels, estimator: AbstractEstimator[Any]) -> float | None:
    """Returns the expectation of the bound for the exact denoiser of independent pixels or of a Gaussian, else None."""
    if not (isinstance(model.prediction, Exact) and isinstance(estimator, VariationalBound)):
        return None
    distribution = model.prediction.distribution
    if not has_known_ends(model.observation):
        return None
    if len(distribution.weights) > 1:
        return None
    if estimator.steps and estimator.kernel != GaussianKernel():
        return None
    gammas, images = estimator.gammas(model.schedule), images[:]
    match distribution:
        case GaussianMixture():
            bound = gaussian_terms(distribution, images, gammas, continuous=not estimator.steps)
        case LevelMixture():
            bound = terms_of_images(exact_terms(distribution, gammas, continuous=not estimator.steps), images)
        case _:
            return None
    return bits_per_dim(float(np.mean(bound.total)), model.dimensions)
