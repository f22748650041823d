# SPDX-License-Identifier: Apache-2.0
"""Grids: the gammas of T steps, from the noisiest to the cleanest."""

import abc
import itertools
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Array, Float

from vdmkit.errors import RecipeError
from vdmkit.noise._schedule import AbstractSchedule, ends_of, gammas_of
from vdmkit.registry import define_kind, register
from vdmkit.typing import Scalar

_OFF = 1e-3  # more than the rounding of gamma in float32


class AbstractGrid(eqx.Module):
    """Chooses the gammas of T steps; an implementer supplies them, between the schedule's ends."""

    @abc.abstractmethod
    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        """Returns T + 1 gammas that fall from gamma_1 to gamma_0."""

    def ends_of_step(self, schedule: AbstractSchedule, t: Scalar, steps: int) -> tuple[Scalar, Scalar]:
        """Returns gamma_t and gamma_s of step number t T, where t is one of 1/T, 2/T, ..., 1."""
        gammas = self(schedule, steps)[::-1]
        i = jnp.round(t * steps).astype(int)
        return gammas[i], gammas[i - 1]


define_kind("grid", "the gammas of T steps, of sampling or of the bound", AbstractGrid)


@register("grid", "uniform")
class UniformInTime(AbstractGrid):
    """The schedule's gammas at t = 1, 1 - 1/T, ..., 0."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        return gammas_of(schedule, steps)[::-1]

    def ends_of_step(self, schedule: AbstractSchedule, t: Scalar, steps: int) -> tuple[Scalar, Scalar]:
        """Computes the two ends without the gammas of the other steps."""
        return schedule(t), schedule(t - 1 / steps)


@register("grid", "quadratic")
class Quadratic(AbstractGrid):
    """sqrt(t) in equal steps: shorter ones near the data (Song et al. 2021, arXiv 2010.02502, App. D.2)."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        return jax.vmap(schedule)((jnp.arange(steps, -1, -1) / steps) ** 2)


@register("grid", "gamma")
class UniformInGamma(AbstractGrid):
    """gamma in equal steps, so that log sigma / alpha falls evenly (k-diffusion's exponential)."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        gamma_0, gamma_1 = gammas_of(schedule, 1)
        return jnp.linspace(gamma_1, gamma_0, steps + 1)


@register("grid", "karras")
class KarrasGrid(AbstractGrid):
    """(sigma / alpha)^(1 / rho) in equal steps (Karras et al. 2022, arXiv 2206.00364, eq. 5)."""

    _: KW_ONLY
    rho: Annotated[float, Ge(0.5), Le(100)] = eqx.field(static=True, default=7.0)

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        last, first = jnp.exp(gammas_of(schedule, 1) / 2 / self.rho)
        return 2 * self.rho * jnp.log(jnp.linspace(first, last, steps + 1))


@register("grid", "tabulated")
class TabulatedGrid(AbstractGrid):
    """The schedule's gammas at T + 1 given times, which fall from 1 to 0."""

    _: KW_ONLY
    times: tuple[Annotated[float, Ge(0), Le(1)], ...] = eqx.field(static=True, default=(1.0, 0.0))

    def __check_init__(self) -> None:
        falls = all(a > b for a, b in itertools.pairwise(self.times))
        if len(self.times) < 2 or not falls or self.times[0] > 1 or self.times[-1] < 0:
            raise RecipeError(f"times = {list(self.times)}: expected at least two that fall from 1 to 0.")

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        _check_steps("tabulated", len(self.times) - 1, steps)
        return jax.vmap(schedule)(jnp.asarray(self.times))


@register("grid", "gammas")
class GivenGammas(AbstractGrid):
    """Given gammas, mapped linearly to the ends of the schedule, as saved by `vdmkit study`.

    Args:
        gammas: T + 1 numbers that fall or rise.
    """

    gammas: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, *, gammas: tuple[Annotated[float, Ge(-100), Le(100)], ...]):
        self.gammas = tuple(sorted(gammas, reverse=True))
        if self.gammas not in (gammas, gammas[::-1]) or len(set(gammas)) != len(gammas) or len(gammas) < 2:
            raise RecipeError(f"gammas = {list(gammas)}: expected at least two that rise or fall.")

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        _check_steps("gammas", len(self.gammas) - 1, steps)
        gamma_0, gamma_1 = gammas_of(schedule, 1)
        given = jnp.asarray(self.gammas)
        share = (given - given[-1]) / (given[0] - given[-1])
        return gamma_0 * (1 - share) + gamma_1 * share


def _check_steps(name: str, given: int, steps: int) -> None:
    if steps != given:
        raise RecipeError(f"grid {name}: it has {given} steps, but {steps} were asked for.")


def steps_of_bound(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> Float[np.ndarray, " steps_plus_1"]:
    """Returns the gammas, rising. Raises RecipeError if the T steps do not cover the schedule from end to end."""
    gammas, ends = np.asarray(grid(schedule, steps), np.float64)[::-1], ends_of(schedule)
    if not (np.diff(gammas) > -_OFF).all():  # written so that a NaN does not rise
        raise RecipeError(f"grid {type(grid).__name__}: its gammas do not fall from step to step.")
    if not np.allclose(gammas[[0, -1]], ends, rtol=0, atol=_OFF):
        raise RecipeError(
            f"grid {type(grid).__name__}: it goes from gamma = {gammas[-1]:g} to {gammas[0]:g}, and the schedule from "
            f"{ends[1]:g} to {ends[0]:g}. A bound needs the whole range."
        )
    return gammas
