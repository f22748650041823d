# SPDX-License-Identifier: Apache-2.0
"""A learned piecewise linear schedule."""

from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

from vdmkit.limits import Gamma, PartialShare
from vdmkit.noise._schedule import AbstractSchedule
from vdmkit.registry import register
from vdmkit.typing import Scalar


@register("schedule", "piecewise_linear")
class PiecewiseLinear(AbstractSchedule):
    """gamma is linear between knots at t = 0, 1 / n, ..., 1; the share of its rise in each piece is learned.

        share_i of the rise = floor / n + (1 - floor) softmax(logits)_i

    so that gamma' is nowhere below `floor` times its mean. It starts linear. The ends are fixed; wrap it in schedule
    `pinned` to learn them as well.

    Args:
        gamma_min: gamma at t = 0.
        gamma_max: gamma at t = 1.
        pieces: Number n of pieces.
        floor: Smallest slope, relative to the mean slope.
    """

    logits: Float[Array, " n"]
    floor: float = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        gamma_min: Gamma = -13.3,
        gamma_max: Gamma = 5.0,
        pieces: Annotated[int, Ge(1), Le(10_000)] = 32,
        floor: PartialShare = 0.01,
    ):
        self.logits = jnp.zeros(pieces)
        self.floor, self.gamma_min, self.gamma_max = floor, gamma_min, gamma_max

    def __call__(self, t: Scalar) -> Scalar:
        n = len(self.logits)
        share = self.floor / n + (1 - self.floor) * jax.nn.softmax(self.logits)
        after = jnp.cumsum(share)  # share of the rise up to the end of each piece
        i = jnp.clip(jnp.floor(t * n).astype(int), 0, n - 1)
        risen = after[i] - (i + 1 - t * n) * share[i]
        return self.gamma_min + (self.gamma_max - self.gamma_min) * risen
