# SPDX-License-Identifier: Apache-2.0
"""The discretised Gaussian of Ho et al. 2020."""

import math
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Integer, UInt8

from vdmkit.estimate import Estimate, require_variance_share
from vdmkit.observation._observation import AbstractObservation, Lazy, require_levels
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar


@register("observation", "discretised_gaussian")
class DiscretisedGaussian(AbstractObservation):
    """p(x | z_0) as the mass of N(x_hat(z_0), sd^2) in the bin of each level; the two outer bins reach to infinity.

    Ho et al. 2020, arXiv 2006.11239, eq. 13, as in improved-diffusion: levels lie at 2 k / (V - 1) - 1, and the normal
    distribution function is taken as 1/2 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)) / 2.

    Args:
        sd: Standard deviation; DDPM takes the square root of the variance of its second step.
        learned: Whether the network gives the log of the variance, between sd^2 and beta = sigma_0^2, the variance of
            the first step (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15), for prediction eps_and_range.
        clip: Whether x_hat is clipped to [-1, 1].
    """

    levels: int = eqx.field(static=True)
    _: KW_ONLY
    sd: Annotated[float, Ge(1e-5), Le(10)] = eqx.field(static=True, default=0.0074)
    learned: bool = eqx.field(static=True, default=False)
    clip: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        require_levels(self.levels, "the discretised Gaussian observation")

    @property
    def spacing(self) -> float:
        return 2 / (self.levels - 1)

    def encode(self, image: Integer[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 2 * image.astype(float) / (self.levels - 1) - 1

    def log_prob(self, image: UInt8[Array, "h w c"], z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Scalar:
        return self._log_mass(image, *self._normal(estimate(), gamma_0)).sum()

    def log_probs(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Float[Array, "h w c v"]:
        normal = self._normal(estimate(), gamma_0)
        return jax.vmap(lambda level: self._log_mass(level, *normal), out_axes=-1)(jnp.arange(self.levels))

    def _normal(self, estimate: Estimate, gamma_0: Scalar) -> tuple[Image, Image | float]:
        """Returns mean and standard deviation of every value."""
        mean = jnp.clip(estimate.x_hat, -1, 1) if self.clip else estimate.x_hat
        if not self.learned:
            return mean, self.sd
        v = require_variance_share(estimate, "observation discretised_gaussian with learned = true")
        return mean, jnp.exp(v * jax.nn.log_sigmoid(gamma_0) / 2 + (1 - v) * math.log(self.sd))

    def _log_mass(self, level: Integer[Array, "*shape"], mean: Image, sd: Image | float) -> Image:
        distance, half = self.encode(level) - mean, 1 / (self.levels - 1)
        above, below = (_tanh_argument((distance + side) / sd) for side in (half, -half))
        inner = jnp.log(jnp.maximum((jnp.tanh(above) - jnp.tanh(below)) / 2, 1e-12))
        last = level == self.levels - 1
        return jnp.where(level == 0, _log_cdf(above), jnp.where(last, _log_cdf(-below), inner))

    def decode(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> UInt8[Array, "h w c"]:
        nearest = jnp.round((estimate().x_hat + 1) / 2 * (self.levels - 1))
        return jnp.clip(nearest, 0, self.levels - 1).astype(jnp.uint8)


def _tanh_argument(x: Image) -> Image:
    return jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)


def _log_cdf(argument: Image) -> Image:
    """Returns log((1 + tanh) / 2), at least log 1e-12."""
    return jnp.maximum(jax.nn.log_sigmoid(2 * argument), jnp.log(1e-12))
