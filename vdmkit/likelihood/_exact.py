# SPDX-License-Identifier: Apache-2.0
"""What a likelihood should come out at, where the distribution of the images is known; bits per dimension."""

from typing import Any

import numpy as np
from jaxtyping import Float, Real

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
_FALSE_ALARM = 9e-7  # of Monte Carlo; with exp(-20) for the images it is one in a million


def impossible_below(
    exact: Float[np.ndarray, " m"], nats: Float[np.ndarray, "2 m"], estimator: AbstractEstimator[Any]
) -> float:
    """Returns the mean, nats an image, below which these estimates belong to no likelihood.

    Minus infinity if Monte Carlo is too coarse to tell.

    Of images drawn from P, sum log(p / P) exceeds 20 nats with probability exp(-20) at most, for any normalised p that
    does not know the images (Markov's inequality). The estimates bound -log p in expectation only, and their errors are
    skewed: see `depth_beyond_doubt`. An importance-weighted bound needs no allowance, for exp(-nats) has at most the
    expectation p, to which Markov's inequality applies as it stands; nor do estimates without Monte Carlo error.

    Args:
        exact: -log P of each image.
        nats: two independent estimates of a bound on -log p for each.
    """
    without_allowance = isinstance(estimator, ImportanceWeighted) or bool((nats[0] == nats[1]).all())
    depth = 0.0 if without_allowance else depth_beyond_doubt((nats - exact).ravel(), _FALSE_ALARM)
    return float(exact.mean()) - _NATS / len(exact) - depth


def below_the_truth(value: float, exact: float, lowest: float, levels: int) -> list[str]:
    """Returns a reason not to trust these bits/dim, if they are less than the `lowest` that are possible."""
    if not value < lowest:
        return []
    failure = "these probabilities do not sum to 1" if levels else "this density does not integrate to 1"
    return [
        f"{value:.4f} bits/dim is impossible: the distribution that these images were drawn from gives them "
        f"{exact:.4f}, so {failure}."
    ]


def exact_bound(
    model: DiffusionModel, images: Real[np.ndarray, "m h w c"], estimator: AbstractEstimator[Any]
) -> float | None:
    """The mean of the bound's estimate, for the exact denoiser of independent pixels or of a Gaussian; else None."""
    if not (isinstance(model.prediction, Exact) and isinstance(estimator, VariationalBound)):
        return None
    distribution = model.prediction.distribution
    if not has_known_ends(model.observation):
        return None
    if len(distribution.weights) > 1:
        return None
    if estimator.steps and estimator.kernel != GaussianKernel():
        return None
    gammas = estimator.gammas(model.schedule)
    match distribution:
        case GaussianMixture():
            bound = gaussian_terms(distribution, images, gammas, continuous=not estimator.steps)
        case LevelMixture():
            bound = terms_of_images(exact_terms(distribution, gammas, continuous=not estimator.steps), images)
        case _:
            return None
    return bits_per_dim(float(np.mean(bound.total)), model.dimensions)
