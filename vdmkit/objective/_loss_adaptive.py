# SPDX-License-Identifier: Apache-2.0
"""A time sampler with a density proportional to the loss."""

from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.limits import Decay, Share
from vdmkit.objective._time_sampler import AbstractTimeSampler, even
from vdmkit.registry import register


@register("time_sampler", "loss_adaptive")
class LossAdaptive(AbstractTimeSampler):
    """The density of t is proportional to the loss observed there (VDM++: Kingma & Gao 2023, arXiv 2303.00848).

    The weighted loss is then about constant in t for any schedule. This is equivalent to learning the schedule: with u
    the uniform variable behind t, gamma(t(u)) has the density of gamma of the schedule gamma'(t) ~ 1 / (loss at gamma),
    which has the least variance if losses at one gamma do not vary (objective.schedule_loss = "variance" learns the
    general case).

    The loss is a running average in bins of t; a share of the draws is uniform, which limits the weights.

    Args:
        bins: Number of bins, of equal width.
        decay: Weight of the old average after one batch.
        uniform: Share of uniform draws.
    """

    total: Float[Array, " bins"]
    count: Float[Array, " bins"]
    decay: float = eqx.field(static=True)
    uniform: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        bins: Annotated[int, Ge(1), Le(10_000)] = 100,
        decay: Decay = 0.999,
        uniform: Share = 0.1,
    ):
        self.total, self.count = jnp.zeros(bins), jnp.zeros(bins)
        self.decay, self.uniform = decay, uniform

    def density(self) -> Float[Array, " bins"]:
        """Returns the density of t in each bin, with mean 1."""
        mean = self.total.sum() / jnp.maximum(self.count.sum(), 1)
        loss = (self.total + mean) / (self.count + 1)  # as if the mean had been observed once in each bin
        relative = jnp.where(mean > 0, loss / jnp.where(mean > 0, loss.mean(), 1), 1)
        return self.uniform + (1 - self.uniform) * relative

    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        density = self.density()
        bins = len(density)
        ends = jnp.cumsum(density) / density.sum()
        u = even(n, key)
        b = jnp.minimum(jnp.searchsorted(ends, u, side="right"), bins - 1)
        t = (b + 1 + (u - ends[b]) * bins / density[b]) / bins
        return jnp.clip(t, 0, 1 - 1e-7), 1 / density[b]

    def after(self, t: Float[Array, " n"], loss: Float[Array, " n"]) -> "LossAdaptive":
        b = jnp.minimum((t * len(self.total)).astype(int), len(self.total) - 1)
        total = (self.decay * self.total).at[b].add(loss)
        count = (self.decay * self.count).at[b].add(1)
        return eqx.tree_at(lambda sampler: (sampler.total, sampler.count), self, (total, count))
