# SPDX-License-Identifier: Apache-2.0
"""What a likelihood should come out at, where the distribution of the images is known; bits per dimension."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from vdmkit.data import Images
from vdmkit.denoiser import Exact
from vdmkit.likelihood import AbstractEstimator, VariationalBound, exact_terms, terms_of_images
from vdmkit.objective import bits_per_dim
from vdmkit.run._load import TrainedRun


def exact_value(run: TrainedRun, test: Images, index: Int[np.ndarray, " m"]) -> float | None:
    """Mean -log2 P of these images, or None."""
    distribution = run.recipe.data.build().distribution
    if distribution is None:
        return None
    return bits_per_dim(float(distribution.nats(test.pixels[index]).mean()), test.pixels[0].size)


def exact_bound(
    run: TrainedRun, test: Images, estimator: AbstractEstimator[Any], index: Int[np.ndarray, " m"]
) -> float | None:
    """The mean of the bound's estimate: by quadrature, for the exact denoiser of independent pixels; else None."""
    distribution, model = run.recipe.data.build().distribution, run.model(run.recipe.likelihood.weights)
    if distribution is None or len(distribution.weights) > 1:
        return None
    if not (isinstance(model.prediction, Exact) and isinstance(estimator, VariationalBound)):
        return None
    steps = estimator.steps or 1
    gammas = np.asarray(jax.vmap(model.schedule)(jnp.arange(steps + 1) / steps), np.float64)
    table = exact_terms(distribution, gammas, continuous=not estimator.steps)
    return bits_per_dim(float(terms_of_images(table, test.pixels[index]).total.mean()), model.dimensions)
