# SPDX-License-Identifier: Apache-2.0
"""The noise schedule gamma(t) = -log SNR(t), strictly increasing on [0, 1]: t = 0 is data, t = 1 is noise."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.errors import RecipeError
from vdmkit.registry import define_kind


class AbstractSchedule(eqx.Module):
    """gamma as a function of time.

    An implementer supplies the two constants and `__call__`, which must be strictly increasing and
    differentiable. gamma_min and gamma_max are the ends that the recipe asks for; networks scale
    their conditioning by them, so they stay fixed while a learned schedule's ends move.
    """

    gamma_min: eqx.AbstractVar[float]
    gamma_max: eqx.AbstractVar[float]

    def __check_init__(self) -> None:
        if not self.gamma_min < self.gamma_max:
            raise RecipeError(f"gamma_min = {self.gamma_min:g} must be below gamma_max = {self.gamma_max:g}.")

    @abc.abstractmethod
    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """gamma(t) for one t in [0, 1]."""


define_kind("schedule", "gamma(t) = -log SNR(t), from data (t = 0) to noise (t = 1)", AbstractSchedule, ("key",))


def gamma_and_derivative(
    schedule: AbstractSchedule, t: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """gamma(t) and dgamma/dt, by forward-mode differentiation."""
    return jax.jvp(schedule, (t,), (jnp.ones_like(t),))
