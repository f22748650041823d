# SPDX-License-Identifier: Apache-2.0
"""The exact denoiser of data whose distribution is known."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.denoiser import AbstractPrediction, Estimate
from vdmkit.distribution._continuous import GaussianMixture
from vdmkit.distribution._distribution import AbstractDistribution
from vdmkit.distribution._levels import LevelMixture
from vdmkit.errors import RecipeError
from vdmkit.noise import AbstractPath
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar


@register("prediction", "exact")
class Exact(AbstractPrediction):
    """The exact posterior, for data whose distribution is known; the network's output is ignored.

    The difference of a likelihood estimate from -log P is then the estimator's own error: discretisation, the ends of
    the schedule, Monte Carlo.
    """

    distribution: AbstractDistribution = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def __call__(self, output: Float[Array, "h w c 1"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return self.distribution.estimate(z, gamma, path)


@register("prediction", "exact_given_label")
class ExactGivenLabel(AbstractPrediction):
    """The exact posterior of a mixture whose components are the labels, by what network `label` says of the image.

    Without a label it is the posterior of the whole mixture.
    """

    distribution: AbstractDistribution = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def __check_init__(self) -> None:
        if not isinstance(self.distribution, GaussianMixture | LevelMixture):
            raise RecipeError("prediction exact_given_label: the components are not known; use data mixture.")

    def __call__(self, output: Float[Array, "h w c 1"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        assert isinstance(self.distribution, GaussianMixture | LevelMixture), "checked"
        weights = jnp.asarray(self.distribution.weights, float)
        told = jnp.clip(jnp.round(output[0, 0, 0, 0]), 0, len(weights))  # NaN, for a label that does not exist, remains
        one = (jnp.arange(1, len(weights) + 1) == told).astype(float)
        return self.distribution.estimate(z, gamma, path, jnp.where(told == 0, weights, one))
