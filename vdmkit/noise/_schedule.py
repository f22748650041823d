# SPDX-License-Identifier: Apache-2.0
"""The noise schedule gamma(t) = -log SNR(t), strictly increasing on [0, 1]: t = 0 is data, t = 1 is noise."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.errors import RecipeError
from vdmkit.registry import define_kind

_PANELS = 20_000  # even a schedule with steep ends is integrated to a thousandth
_JUMP = 0.005
_CHECKED_TIMES = 101  # close enough to find a fall, far enough apart for a slow rise to show in float32


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


def gamma_and_derivative(schedule: AbstractSchedule, t: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """gamma(t) and dgamma/dt, by forward-mode differentiation."""
    return jax.jvp(schedule, (t,), (jnp.ones_like(t),))


def check_increasing(schedule: AbstractSchedule) -> None:
    """Raises RecipeError where gamma does not rise: there the signal-to-noise ratio would, and the bound is none."""
    t = jnp.linspace(0, 1, _CHECKED_TIMES)
    gamma = np.asarray(jax.vmap(schedule)(t))
    wrong = np.flatnonzero(~(np.diff(gamma) > 0))  # written so that a NaN is wrong too
    if len(wrong):
        i = wrong[0]
        raise RecipeError(
            f"the schedule does not rise: gamma({t[i]:.3f}) = {gamma[i]:g}, gamma({t[i + 1]:.3f}) = {gamma[i + 1]:g}. "
            "It must be strictly increasing on [0, 1]."
        )
    _check_no_jump(schedule)


def _check_no_jump(schedule: AbstractSchedule) -> None:
    """A jump has no derivative: the continuous-time bound would leave out what lies across it."""
    middles = (jnp.arange(_PANELS) + 0.5) / _PANELS
    integral = float(jax.vmap(lambda t: gamma_and_derivative(schedule, t)[1])(middles).mean())
    rise = float(schedule(jnp.ones(())) - schedule(jnp.zeros(())))
    if not abs(integral - rise) <= _JUMP * rise:
        raise RecipeError(
            f"the schedule rises by {rise:g} on [0, 1], but its derivative adds up to {integral:g}. "
            "It must be differentiable, without jumps."
        )
