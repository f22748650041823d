# SPDX-License-Identifier: Apache-2.0
"""Samplers of the times t at which the diffusion loss of a batch is evaluated.

Times are returned with weights 1 / density, so that the choice of density does not change the mean of the loss. The
weights are 1 except for the importance samplers `logit_normal`, `signal` and `loss_adaptive`.
"""

import abc
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.arguments import Decay, Gamma, Share, Steps, Width
from vdmkit.errors import RecipeError
from vdmkit.registry import define_kind, register


class AbstractTimeSampler(eqx.Module):
    """A sampler of times. Subclasses return each time with its weight 1 / density, so that the loss is unbiased."""

    @abc.abstractmethod
    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Returns n times in [0, 1) and their weights."""

    def after(self, t: Float[Array, " n"], loss: Float[Array, " n"]) -> "AbstractTimeSampler":
        """Returns the sampler of the next batch, given the unweighted losses of the last batch in nats."""
        return self


define_kind("time_sampler", "the times at which the loss is evaluated", AbstractTimeSampler)


def even(n: int, key: PRNGKeyArray) -> Float[Array, " n"]:
    """Returns n stratified times: one uniform draw shifted by i / n, modulo 1."""
    return (jax.random.uniform(key, dtype=float) + jnp.arange(n) / n) % 1


@register("time_sampler", "uniform")
class Uniform(AbstractTimeSampler):
    """Independent uniform times."""

    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return jax.random.uniform(key, (n,), dtype=float), jnp.ones(n)


@register("time_sampler", "low_discrepancy")
class LowDiscrepancy(AbstractTimeSampler):
    """One uniform draw shifted by i / n: uniform times that are evenly spaced (Kingma et al. 2021, App. I.1)."""

    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return even(n, key), jnp.ones(n)


@register("time_sampler", "discrete_grid")
class DiscreteGrid(AbstractTimeSampler):
    """The midpoints of T equal intervals; the mean of the loss is the midpoint rule.

    Args:
        steps: Number T of intervals.
    """

    _: KW_ONLY
    steps: Steps = eqx.field(static=True, default=1000)

    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return (jnp.floor(even(n, key) * self.steps) + 0.5) / self.steps, jnp.ones(n)


@register("time_sampler", "logit_normal")
class LogitNormal(AbstractTimeSampler):
    """logit t ~ N(mean, std^2) with low discrepancy: more draws in the middle (Esser et al. 2024, arXiv 2403.03206).

    The draws are weighted by the inverse of their density, so the mean of the loss does not change. A fraction of the
    draws is uniform, which bounds the weights.

    Args:
        mean: Mean of logit t; positive values make higher noise levels more frequent.
        std: Standard deviation of logit t.
        uniform: Fraction of uniform draws.
    """

    _: KW_ONLY
    mean: Annotated[float, Ge(-20), Le(20)] = eqx.field(static=True, default=0.0)
    std: Width = eqx.field(static=True, default=1.0)
    uniform: Share = eqx.field(static=True, default=0.1)

    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        u = even(n, key)
        # u below `uniform` gives a uniform draw; above it, u is rescaled to a quantile of the logit-normal.
        quantile = jnp.clip((u - self.uniform) / (1 - self.uniform + 1e-7), 1e-6, 1 - 1e-6)
        middle = jax.nn.sigmoid(self.mean + self.std * jax.scipy.special.ndtri(quantile))
        t = jnp.minimum(jnp.where(u < self.uniform, u / self.uniform, middle), 1 - 1e-7)
        return t, 1 / self._density(t)

    def _density(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        t = jnp.clip(t, 1e-6, 1 - 1e-6)
        score = (jax.scipy.special.logit(t) - self.mean) / self.std
        normal = jnp.exp(-(score**2) / 2) / (self.std * jnp.sqrt(2 * jnp.pi) * t * (1 - t))
        return self.uniform + (1 - self.uniform) * normal


@register("time_sampler", "signal")
class Signal(AbstractTimeSampler):
    """Density ~ alpha^2 = sigmoid(-gamma) of a linear gamma(t), with low discrepancy.

    This is meant for the v prediction: if the error of v is constant in t, so is the weighted loss of the ELBO
    (Zheng et al. 2023, arXiv 2305.03935, importance sampling on the variance preserving path).

    Args:
        gamma_min: gamma at t = 0 of the linear schedule.
        gamma_max: gamma at t = 1 of the linear schedule.
    """

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)

    def __check_init__(self) -> None:
        if not self.gamma_min < self.gamma_max:
            raise RecipeError(f"gamma_min = {self.gamma_min:g} must be below gamma_max = {self.gamma_max:g}.")

    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        first, last = jax.nn.softplus(-self.gamma_min), jax.nn.softplus(-self.gamma_max)  # integrals of alpha^2
        gamma = -jnp.log(jnp.expm1(first + (last - first) * even(n, key)))
        rise = self.gamma_max - self.gamma_min
        t = jnp.clip((gamma - self.gamma_min) / rise, 0, 1 - 1e-7)
        return t, (first - last) / rise / jax.nn.sigmoid(-self.gamma_min - rise * t)


@register("time_sampler", "loss_adaptive")
class LossAdaptive(AbstractTimeSampler):
    """The density of t is proportional to the loss observed there (VDM++: Kingma & Gao 2023, arXiv 2303.00848).

    The weighted loss is then roughly constant in t for any schedule. This is equivalent to learning the schedule: if t
    is a function of a uniform u, then gamma(t(u)) has the same density as under the schedule with
    gamma'(t) ~ 1 / (loss at gamma). That schedule minimises the variance if the loss at a given gamma is constant;
    objective.schedule_loss = "variance" also covers the general case.

    The loss is a running average in bins of t. A fraction of the draws is uniform, which bounds the weights.

    Args:
        bins: Number of bins of equal width.
        decay: Weight of the previous average after one batch.
        uniform: Fraction of uniform draws.
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
        loss = (self.total + mean) / (self.count + 1)  # adds one observation of the mean to each bin
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
