# SPDX-License-Identifier: Apache-2.0
"""The paper's decoder: the probabilities of levels are those of the noise between them and z_0."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from vdmkit.observation._observation import AbstractObservation, Lazy, level_values, require_levels, value_of
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar

_SIDE = 4  # levels on each side of the nearest one in a window
_FEW = 32  # so many levels are summed at once


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
        """Returns log q(z_0 | x_k) / q(z_0 | x) of each level, with apart = x_k - x.

        It is exactly 0 for x itself. The difference of two logarithms is not, with the rounding of x in both, and then
        p(x | z_0) may exceed 1.
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
    """Returns log sum_k exp(-1/2 u_k^2), and the means of u_k and u_k^2 under these weights, level by level.

    At low noise only the levels next to z_0 count. With (W + 1) W / 2 times the squared ratio of spacing to noise
    above -log(precision / V), all levels but W on each side of the nearest add less than a rounding error.
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
