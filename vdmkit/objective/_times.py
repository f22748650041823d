# SPDX-License-Identifier: Apache-2.0
"""At which times the diffusion loss of a batch is evaluated."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.registry import define_kind, register


class AbstractTimes(eqx.Module):
    """Times for a batch. An implementer returns with each its weight, 1 / density, so that the loss stays unbiased."""

    @abc.abstractmethod
    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """n times in [0, 1) and their weights."""


define_kind("times", "the times at which the loss is evaluated", AbstractTimes)


@register("times", "uniform")
class Uniform(AbstractTimes):
    """Independent uniform times."""

    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return jax.random.uniform(key, (n,), dtype=float), jnp.ones(n)


@register("times", "low_discrepancy")
class LowDiscrepancy(AbstractTimes):
    """One uniform draw shifted by i / n: each is uniform, together they are even (Kingma et al. 2021, App. I.1)."""

    def __call__(self, n: int, *, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return (jax.random.uniform(key, dtype=float) + jnp.arange(n) / n) % 1, jnp.ones(n)
