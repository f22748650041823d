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
_BLOCK = 16  # levels at once where a window is too narrow


@register("observation", "categorical")
class CategoricalObservation(AbstractObservation):
    """p(x | z_0) ~ q(z_0 | x), normalised over the levels of each pixel (Kingma et al. 2021, section 3.3)."""

    levels: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        require_levels(self.levels, "the categorical observation")

    def log_probs(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Float[Array, "h w c v"]:
        return jax.nn.log_softmax(_log_evidence(z_0[..., None], level_values(self.levels), gamma_0))

    def log_prob(self, image: UInt8[Array, "h w c"], z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Scalar:
        evidence = _log_evidence(z_0, self.encode(image), gamma_0)
        return (evidence - log_normaliser(z_0, gamma_0, self.levels)).sum()

    def decode(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> UInt8[Array, "h w c"]:
        return jnp.argmax(self.log_probs(z_0, gamma_0, x_hat), axis=-1).astype(jnp.uint8)


def log_normaliser(z_0: Image, gamma_0: Scalar, levels: int) -> Image:
    """Returns log sum_k exp(-1/2 (z_0 - x_k)^2 exp(-gamma_0)) of every pixel, without all levels in memory at once.

    At low noise only the levels next to z_0 count. With (W + 1) W / 2 times the squared ratio of spacing to noise
    above -log(precision / V), all levels but W on each side of the nearest add less than a rounding error.
    """
    if levels <= 2 * _BLOCK:
        return _log_sum(z_0, jnp.arange(levels), gamma_0, levels)
    squared_ratio = (2 / levels) ** 2 * jnp.exp(-gamma_0)
    enough = _SIDE * (_SIDE + 1) / 2 * squared_ratio > jnp.log(levels / jnp.finfo(z_0.dtype).eps)
    # Without checkpoint, the gradient would keep what each branch computes on its way.
    branches = (jax.checkpoint(functools.partial(of, levels=levels)) for of in (_in_window, _in_blocks))
    return jax.lax.cond(enough, *branches, z_0, gamma_0)


def _in_window(z_0: Image, gamma_0: Scalar, levels: int) -> Image:
    nearest = jnp.clip(jnp.floor((z_0 + 1) / 2 * levels), 0, levels - 1).astype(int)
    return _log_sum(z_0, nearest[..., None] + jnp.arange(-_SIDE, _SIDE + 1), gamma_0, levels)


def _in_blocks(z_0: Image, gamma_0: Scalar, levels: int) -> Image:
    blocks = jnp.arange(-(-levels // _BLOCK) * _BLOCK).reshape(-1, _BLOCK)
    of_block = jax.checkpoint(lambda block: _log_sum(z_0, block, gamma_0, levels))
    return jax.nn.logsumexp(jax.lax.map(of_block, blocks), axis=0)


def _log_sum(z_0: Image, level: Int[Array, "*#shape v"], gamma_0: Scalar, levels: int) -> Image:
    """Sums over those of the given levels that exist."""
    evidence = _log_evidence(z_0[..., None], value_of(level, levels), gamma_0)
    return jax.nn.logsumexp(evidence, axis=-1, where=(level >= 0) & (level < levels))


def _log_evidence(z_0: Float[Array, "..."], x: Float[Array, "..."], gamma_0: Scalar) -> Float[Array, "..."]:
    """Returns log q(z_0 | x) up to a constant."""
    return -0.5 * ((z_0 - x) * jnp.exp(-gamma_0 / 2)) ** 2
