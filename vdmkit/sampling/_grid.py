# SPDX-License-Identifier: Apache-2.0
"""Grids of gammas, from the noisiest to the cleanest, that a sampler walks down."""

import abc
import itertools
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Gt
from jaxtyping import Array, Float

from vdmkit.errors import RecipeError
from vdmkit.noise import AbstractSchedule, ends_of, gammas_of
from vdmkit.registry import define_kind, register


class AbstractGrid(eqx.Module):
    """An implementer supplies the gammas of T steps between the schedule's ends."""

    @abc.abstractmethod
    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        """T + 1 gammas that fall from gamma_1 to gamma_0."""


define_kind("grid", "the gammas of the steps of sampling", AbstractGrid)


@register("grid", "uniform")
class UniformInTime(AbstractGrid):
    """t = 1, 1 - 1/T, ..., 0 of the schedule."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        return gammas_of(schedule, steps)[::-1]


@register("grid", "quadratic")
class Quadratic(AbstractGrid):
    """sqrt(t) in equal steps: shorter ones near the data (Song et al. 2021, arXiv 2010.02502, App. D.2)."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        return jax.vmap(schedule)((jnp.arange(steps, -1, -1) / steps) ** 2)


@register("grid", "gamma")
class UniformInGamma(AbstractGrid):
    """gamma in equal steps, so that log sigma / alpha falls evenly (k-diffusion's exponential)."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        gamma_0, gamma_1 = ends_of(schedule)
        return jnp.linspace(gamma_1, gamma_0, steps + 1)


@register("grid", "karras")
class KarrasGrid(AbstractGrid):
    """(sigma / alpha)^(1 / rho) in equal steps (Karras et al. 2022, arXiv 2206.00364, eq. 5)."""

    rho: float = eqx.field(static=True)

    def __init__(self, *, rho: Annotated[float, Gt(0)] = 7.0):
        self.rho = rho

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        gamma_0, gamma_1 = ends_of(schedule)
        first, last = (jnp.exp(jnp.asarray(gamma / 2 / self.rho, float)) for gamma in (gamma_1, gamma_0))
        return 2 * self.rho * jnp.log(jnp.linspace(first, last, steps + 1))


@register("grid", "tabulated")
class TabulatedGrid(AbstractGrid):
    """Given times t, from 1 down to 0, whose number is that of the steps and one more."""

    times: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, *, times: tuple[float, ...] = (1.0, 0.0)):
        falls = all(a > b for a, b in itertools.pairwise(times))
        if len(times) < 2 or not falls or times[0] > 1 or times[-1] < 0:
            raise RecipeError(f"times = {list(times)}: expected at least two that fall from 1 to 0.")
        self.times = times

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        if steps != len(self.times) - 1:
            raise RecipeError(
                f"grid tabulated: its times make {len(self.times) - 1} steps, and {steps} were asked for."
            )
        return jax.vmap(schedule)(jnp.asarray(self.times))
