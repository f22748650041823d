# SPDX-License-Identifier: Apache-2.0
r"""Schedules whose gamma is Laplace or Cauchy distributed for uniform t, as a plugin of vdmkit.

Hang et al. 2024, arXiv 2407.03297, Table 1, truncated at the recipe's ends: gamma = Q(u), with Q the quantile function
and u linear in t.
"""

import math
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

import vdmkit
from vdmkit.schedules import AbstractSchedule

Gamma = Annotated[float, Ge(-30), Le(30)]
Width = Annotated[float, Ge(0.01), Le(100)]


@vdmkit.register("schedule", "laplace")
class Laplace(AbstractSchedule):
    """gamma is Laplace distributed around `mean`, which concentrates training at intermediate noise levels.

    Args:
        gamma_min: gamma at t = 0.
        gamma_max: gamma at t = 1.
        mean: Mean of gamma before truncation.
        width: Scale b of the density exp(-|gamma - mean| / b) / 2b.
    """

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)
    mean: Gamma = eqx.field(static=True, default=0.0)
    width: Width = eqx.field(static=True, default=2.0)

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        below, above = (self._shares(gamma) for gamma in (self.gamma_min, self.gamma_max))
        # Computed from the smaller tail: one minus the larger tail would round it away.
        left, right = (first + (last - first) * t for first, last in zip(below, above, strict=True))
        offset = jnp.where(left < right, jnp.log(2 * left), -jnp.log(2 * right))
        return self.mean + self.width * offset

    def _shares(self, gamma: float) -> tuple[float, float]:
        """Returns the probabilities below and above gamma."""
        smaller = math.exp(-abs(gamma - self.mean) / self.width) / 2
        return (smaller, 1 - smaller) if gamma < self.mean else (1 - smaller, smaller)


@vdmkit.register("schedule", "cauchy")
class Cauchy(AbstractSchedule):
    """gamma is Cauchy distributed around `mean`, with heavier tails than `laplace`.

    Args:
        gamma_min: gamma at t = 0.
        gamma_max: gamma at t = 1.
        mean: Centre of the density.
        width: Half the width of the density at half its height.
    """

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)
    mean: Gamma = eqx.field(static=True, default=0.0)
    width: Width = eqx.field(static=True, default=2.0)

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        first, last = (math.atan((gamma - self.mean) / self.width) for gamma in (self.gamma_min, self.gamma_max))
        return self.mean + self.width * jnp.tan(first + (last - first) * t)
