# SPDX-License-Identifier: Apache-2.0
"""Schedules linear in t, with fixed or learned ends."""

from dataclasses import KW_ONLY

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.limits import Gamma
from vdmkit.noise._schedule import AbstractSchedule
from vdmkit.registry import register


@register("schedule", "fixed_linear")
class FixedLinear(AbstractSchedule):
    """gamma rises linearly from gamma_min to gamma_max; nothing is learned."""

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t


@register("schedule", "learned_linear")
class LearnedLinear(AbstractSchedule):
    """gamma = b + |w| t with learned ends, trained on the bound (Kingma et al. 2021, Table 1)."""

    w: Float[Array, "1"]
    b: Float[Array, "1"]
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(self, *, gamma_min: Gamma = -13.3, gamma_max: Gamma = 5.0):
        self.w = jnp.array([gamma_max - gamma_min], dtype=float)
        self.b = jnp.array([gamma_min], dtype=float)
        self.gamma_min = gamma_min
        self.gamma_max = gamma_max

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        return self.b[0] + jnp.abs(self.w[0]) * t
