# SPDX-License-Identifier: Apache-2.0
"""Observations: the map from images to data x, and the decoder p(x | z_0).

- `categorical`, the decoder of Kingma et al. 2021: p(x | z_0) ~ q(z_0 | x), normalised over the levels.
- `discretised_gaussian`, the decoder of Ho et al. 2020: the mass of a Gaussian in the bin of each level.
- `gaussian`, a density, for continuous data.
"""

import abc
import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Int, Integer, Real, UInt8

from vdmkit.errors import RecipeError
from vdmkit.predictions import Estimate, level_values, require_levels, require_variance_share, value_of
from vdmkit.process import Image
from vdmkit.registry import define_kind, register
from vdmkit.schedules import Scalar

__all__ = ["AbstractObservation", "CategoricalObservation", "DiscretisedGaussian", "GaussianObservation"]

Lazy = Callable[[], Estimate]


def require_even_levels(observation: "AbstractObservation", component: str) -> None:
    """Raises RecipeError unless the observation puts the levels at `level_values`, as `component` needs."""
    if observation.spacing != 2 / observation.levels:
        raise RecipeError(
            f"{component} needs levels at the centres of equal bins, but the observation puts them elsewhere. "
            'Use observation "categorical".'
        )


class AbstractObservation(eqx.Module):
    """The decoder p(x | z_0).

    `z_0` is passed divided by alpha_0, so decoders do not depend on the path. Images are uint8 levels 0..V-1, or the
    data x themselves if `levels` is 0. `estimate()` evaluates the network at z_0; decoders that do not need it do not
    call it.
    """

    levels: eqx.AbstractVar[int]

    @property
    def spacing(self) -> float:
        """Returns the distance between the values x of neighbouring levels, which is the bin width."""
        return 2 / self.levels

    def encode(self, image: Real[Array, "h w c"]) -> Image:
        """Maps levels 0..V-1 to data x, by default in [-1 + 1/V, 1 - 1/V]; continuous data are unchanged."""
        return level_values(self.levels)[image] if self.levels else image.astype(float)

    @abc.abstractmethod
    def log_prob(self, image: Real[Array, "h w c"], z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Scalar:
        """Returns log p(x | z_0) in nats, summed over pixels and channels."""

    def log_probs(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Float[Array, "h w c v"]:
        """Returns log p(x = level k | z_0) of every pixel in nats. Only compression needs them.

        Raises:
            RecipeError: the observation does not define these probabilities.
        """
        raise RecipeError(f"observation {type(self).__name__} gives no probabilities of levels, for a codec.")

    @abc.abstractmethod
    def decode(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Real[Array, "h w c"]:
        """Returns the most probable image."""


define_kind("observation", "the decoder p(x | z_0), from the last latent to levels", AbstractObservation, ("levels",))


_SIDE = 4  # number of levels on each side of the nearest one in a window
_FEW = 32  # largest number of levels that are summed in one array


@register("observation", "categorical")
class CategoricalObservation(AbstractObservation):
    """p(x | z_0) ~ q(z_0 | x), normalised over the levels of each pixel (Kingma et al. 2021, section 3.3)."""

    levels: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        require_levels(self.levels, "the categorical observation")

    def log_probs(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Float[Array, "h w c v"]:
        return jax.nn.log_softmax(_log_evidence(z_0[..., None], level_values(self.levels), gamma_0))

    def log_prob(self, image: UInt8[Array, "h w c"], z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Scalar:
        if self.levels <= _FEW:
            return -jax.nn.logsumexp(self._log_ratios(image, z_0, gamma_0), axis=-1).sum()
        evidence = _log_evidence(z_0, self.encode(image), gamma_0)
        return (evidence - _log_sum(z_0, gamma_0, self.levels)).sum()

    def _log_ratios(self, image: UInt8[Array, "h w c"], z_0: Image, gamma_0: Scalar) -> Float[Array, "h w c v"]:
        """Returns log q(z_0 | x_k) / q(z_0 | x) of each level, as a function of apart = x_k - x.

        This is exactly 0 for x_k = x. A difference of two logarithms is not, because x is rounded differently in each,
        and p(x | z_0) could then exceed 1.
        """
        apart = 2 / self.levels * (jnp.arange(self.levels) - image[..., None].astype(int))
        return apart * ((z_0 - self.encode(image))[..., None] - apart / 2) * jnp.exp(-gamma_0)

    def decode(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> UInt8[Array, "h w c"]:
        return jnp.argmax(self.log_probs(z_0, gamma_0, estimate), axis=-1).astype(jnp.uint8)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _log_sum(z_0: Image, gamma_0: Scalar, levels: int) -> Image:
    """Returns log sum_k exp(-1/2 u_k^2) of every pixel, where u_k = (z_0 - x_k) exp(-gamma_0 / 2)."""
    return _log_sum_and_moments(z_0, gamma_0, levels)[0]


@_log_sum.defjvp
def _derivative(levels: int, at: tuple[Image, Scalar], along: tuple[Image, Scalar]) -> tuple[Image, Image]:
    log_sum, mean, mean_square = _log_sum_and_moments(*at, levels)
    z_0, gamma_0 = along
    return log_sum, mean_square / 2 * gamma_0 - jnp.exp(-at[1] / 2) * mean * z_0


def _log_sum_and_moments(z_0: Image, gamma_0: Scalar, levels: int) -> tuple[Image, Image, Image]:
    """Returns log sum_k exp(-1/2 u_k^2), and the means of u_k and u_k^2 under these weights, by a loop over levels.

    At low noise only the levels next to z_0 matter. If W (W + 1) / 2 times the squared ratio of spacing to noise
    exceeds log(V / machine epsilon), the levels beyond W on each side of the nearest add less than a rounding error.
    """
    squared_ratio = (2 / levels) ** 2 * jnp.exp(-gamma_0)
    enough = _SIDE * (_SIDE + 1) / 2 * squared_ratio > jnp.log(levels / jnp.finfo(z_0.dtype).eps)
    nearest = jnp.clip(jnp.floor((z_0 + 1) / 2 * levels), 0, levels - 1).astype(int)
    first, count = jnp.where(enough, nearest - _SIDE, 0), jnp.where(enough, 2 * _SIDE + 1, levels)
    largest = _log_evidence(z_0, value_of(nearest, levels), gamma_0)

    def add(i: Int[Array, ""], sums: tuple[Image, ...]) -> tuple[Image, ...]:
        level = first + i
        u = (z_0 - value_of(level, levels)) * jnp.exp(-gamma_0 / 2)
        weight = jnp.where((level >= 0) & (level < levels), jnp.exp(-0.5 * u**2 - largest), 0)
        return tuple(total + weight * u**power for power, total in enumerate(sums))

    total, *moments = jax.lax.fori_loop(0, count, add, (jnp.zeros_like(largest),) * 3)
    mean, mean_square = (moment / total for moment in moments)
    return largest + jnp.log(total), mean, mean_square


def _log_evidence(z_0: Float[Array, "..."], x: Float[Array, "..."], gamma_0: Scalar) -> Float[Array, "..."]:
    """Returns log q(z_0 | x) up to a constant."""
    return -0.5 * ((z_0 - x) * jnp.exp(-gamma_0 / 2)) ** 2


@register("observation", "discretised_gaussian")
class DiscretisedGaussian(AbstractObservation):
    """p(x | z_0) as the mass of N(x_hat(z_0), sd^2) in the bin of each level; the two outer bins extend to infinity.

    Ho et al. 2020, arXiv 2006.11239, eq. 13, as in improved-diffusion: level k is at 2 k / (V - 1) - 1, and the normal
    distribution function is approximated by 1/2 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)) / 2.

    Args:
        sd: Standard deviation; in DDPM it is the square root of the variance of the second step.
        learned: Whether the network learns the log variance, between those of sd^2 and beta = sigma_0^2, the variance
            of the first step (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15), for prediction eps_and_range.
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
    """Returns log((1 + tanh(argument)) / 2), clipped below at log 1e-12."""
    return jnp.maximum(jax.nn.log_sigmoid(2 * argument), jnp.log(1e-12))


@register("observation", "gaussian")
class GaussianObservation(AbstractObservation):
    """p(x | z_0) ~ q(z_0 | x) for continuous data, as a density: N(x; z_0 / alpha_0, exp(gamma_0) I)."""

    levels: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.levels:
            raise RecipeError(f"the gaussian observation needs continuous data, but these have {self.levels} levels.")

    def log_prob(self, image: Image, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Scalar:
        distance = (self.encode(image) - z_0) * jnp.exp(-gamma_0 / 2)
        return -0.5 * (distance**2 + gamma_0 + jnp.log(2 * jnp.pi)).sum()

    def decode(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Image:
        return z_0
