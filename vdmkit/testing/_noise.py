# SPDX-License-Identifier: Apache-2.0
"""Schedules, paths and grids."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.noise import AbstractGrid, AbstractPath, AbstractSchedule, check_increasing, ends_of, gamma_and_derivative
from vdmkit.testing._expect import expect, near

GAMMAS = (-13.0, -5.0, 0.0, 5.0)
_END = 1e-3  # of gamma at an end: more than float32 rounding


def check_schedule(schedule: AbstractSchedule) -> None:
    """gamma rises from gamma_min to gamma_max, and is the integral of its derivative.

    The ends may be off by float32 rounding, or by 1e-3 where the schedule has parameters, which training moves anyway.

    Raises:
        ConformanceError: it ends elsewhere, or gamma' is not above 0.
        RecipeError: it does not rise, or jumps.
    """
    check_increasing(schedule)
    learns = any(map(eqx.is_inexact_array, jax.tree.leaves(schedule)))
    with jax.enable_x64(True):
        wanted = schedule.gamma_min, schedule.gamma_max
        for name, found, end in zip(("gamma_min", "gamma_max"), ends_of(schedule), wanted, strict=True):
            off = abs(found - end)
            expect(off < (_END if learns else 1e-6 * (1 + abs(end))), f"{name} = {end:g}, but gamma is {found:g} there")
        slope = jax.jit(jax.vmap(lambda t: gamma_and_derivative(schedule, t)[1]))(jnp.linspace(0.01, 0.99, 99))
        expect(bool((np.asarray(slope) > 0).all()), "gamma' is not above 0 everywhere")


def check_path(path: AbstractPath) -> None:
    """alpha > 0, sigma / alpha = exp(gamma / 2), and scale^2 = alpha^2 + sigma^2, in float32 and in float64.

    Raises:
        ConformanceError: one of these does not hold.
    """
    check_scales(path, GAMMAS, tolerance=1e-5)
    with jax.enable_x64(True):
        check_scales(path, GAMMAS, tolerance=1e-9)


def check_scales(path: AbstractPath, gammas: tuple[float, ...], *, tolerance: float) -> None:
    """What `check_path` says, at these gammas.

    Raises:
        ConformanceError: it does not hold at one of them.
    """
    scales = scales_of(path, jnp.asarray(gammas, float))
    for gamma, a, s, both in zip(gammas, *(np.asarray(values, np.float64) for values in scales), strict=True):
        expect(0 < a < np.inf, f"alpha = {a:g} at gamma = {gamma:g}")
        found = 2 * np.log(s / a) if s > 0 else np.nan
        expect(near(found, gamma, tolerance), f"log sigma^2 / alpha^2 = {found:g} at gamma = {gamma:g}")
        expect(near(both / np.hypot(a, s), 1.0, tolerance), "scale is not sqrt(alpha^2 + sigma^2)")


@eqx.filter_jit
def scales_of(path: AbstractPath, gammas: Float[Array, " n"]) -> tuple[Float[Array, " n"], ...]:
    """alpha, sigma and scale at each gamma."""
    return jax.vmap(lambda gamma: (path.alpha(gamma), path.sigma(gamma), path.scale(gamma)))(gammas)


def check_grid(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> None:
    """steps + 1 gammas fall from gamma_1 to gamma_0, and a step asked for by its time has the gammas of the grid.

    Raises:
        ConformanceError: they do not.
    """
    gammas, ends = np.asarray(eqx.filter_jit(grid)(schedule, steps), np.float64), ends_of(schedule)
    expect(gammas.shape == (steps + 1,), f"{steps} steps give {gammas.shape} gammas: expected {steps + 1}")
    rounding = 1e-6 * (1 + abs(gammas).max())
    expect(bool((np.diff(gammas) < rounding).all()), "the gammas do not fall")
    reach = f"they go from {gammas[0]:g} to {gammas[-1]:g}, and the schedule from {ends[1]:g} to {ends[0]:g}"
    expect(near(gammas[[-1, 0]], np.asarray(ends), _END), f"the ends are not the schedule's: {reach}")
    found = np.asarray(_ends_of_steps(grid, schedule, steps), np.float64)
    off = abs(found - np.stack([gammas[-2::-1], gammas[:0:-1]])).max()
    expect(off < _END * (1 + abs(gammas).max()), f"a step asked for by its time has gammas {off:g} off the grid's")


@eqx.filter_jit
def _ends_of_steps(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> Float[Array, "2 steps"]:
    """gamma_t and gamma_s of every step, from the cleanest to the noisiest."""
    of_time = jax.vmap(lambda t: jnp.stack(grid.ends_of_step(schedule, t, steps)), out_axes=1)
    return of_time(jnp.arange(1, steps + 1) / steps)
