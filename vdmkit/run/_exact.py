# SPDX-License-Identifier: Apache-2.0
"""What a likelihood should come out at, where the distribution of the images is known; bits per dimension."""

import math
from typing import Any

import numpy as np
from jaxtyping import Int

from vdmkit.data import Images
from vdmkit.distribution import Exact, GaussianMixture, LevelMixture
from vdmkit.kernel import Gaussian
from vdmkit.likelihood import (
    AbstractEstimator,
    VariationalBound,
    exact_terms,
    gaussian_terms,
    has_known_ends,
    terms_of_images,
)
from vdmkit.objective import bits_per_dim
from vdmkit.run._load import TrainedRun

_NATS = 20.0


def exact_value(run: TrainedRun, test: Images, index: Int[np.ndarray, " m"]) -> float | None:
    """Mean -log2 P of these images, or None."""
    distribution = run.recipe.data.build().distribution
    if distribution is None:
        return None
    return bits_per_dim(float(distribution.nats(test.pixels[index]).mean()), test.pixels[0].size)


def below_the_truth(exact: float, highest: float, dimensions: int) -> list[str]:
    """A reason not to trust bits/dim of which `highest` is an upper limit, if they are too low to be a likelihood.

    Of images drawn from P, sum log(p / P) exceeds a nats with probability exp(-a) at most, for any normalised p that
    does not know the images (Markov's inequality). Here a = 20: 2e-9.
    """
    if (exact - highest) * dimensions * math.log(2) < _NATS:
        return []
    return [f"no model gives images of exactly {exact:.4f} bits/dim so little: its probabilities do not sum to 1."]


def exact_bound(
    run: TrainedRun, test: Images, estimator: AbstractEstimator[Any], index: Int[np.ndarray, " m"]
) -> float | None:
    """The mean of the bound's estimate, for the exact denoiser of independent pixels or of a Gaussian; else None."""
    model = run.model(run.recipe.likelihood.weights)
    if not (isinstance(model.prediction, Exact) and isinstance(estimator, VariationalBound)):
        return None
    distribution = model.prediction.distribution
    if not has_known_ends(model.observation):
        return None
    if len(distribution.weights) > 1:
        return None
    if estimator.steps and estimator.kernel != Gaussian():
        return None
    images, gammas = test.pixels[index], estimator.gammas(model.schedule)
    match distribution:
        case GaussianMixture():
            bound = gaussian_terms(distribution, images, gammas, continuous=not estimator.steps)
        case LevelMixture():
            bound = terms_of_images(exact_terms(distribution, gammas, continuous=not estimator.steps), images)
        case _:
            return None
    return bits_per_dim(float(np.mean(bound.total)), model.dimensions)
