# SPDX-License-Identifier: Apache-2.0
"""Group normalisation of one image (Wu and He 2018, arXiv 1803.08494)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-6
"""Flax's default and the authors'; other frameworks use 1e-5, which does not reproduce their numbers."""


class GroupNorm(eqx.Module):
    """Mean 0 and variance 1 over (h, w, channels of a group), then a scale and a bias per channel."""

    scale: Float[Array, " c"]
    bias: Float[Array, " c"]
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int, groups: int):
        self.scale = jnp.ones(channels)
        self.bias = jnp.zeros(channels)
        self.groups = groups

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        centred = x - self._group_mean(x)
        variance = self._group_mean(jnp.square(centred))
        return centred * (self.scale * jax.lax.rsqrt(variance + EPSILON)) + self.bias

    def _group_mean(self, x: Float[Array, "h w c"]) -> Float[Array, " c"]:
        """Per channel the mean of its group. Pixels first: that reduction keeps the channels contiguous."""
        per_channel = jnp.mean(x, axis=(0, 1))
        per_group = jnp.mean(per_channel.reshape(self.groups, -1), axis=1)
        return jnp.repeat(per_group, per_channel.size // self.groups)
