# SPDX-License-Identifier: Apache-2.0
"""Checks of schedules, paths and grids."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.networks import AbstractAxis
from vdmkit.noise import AbstractGrid, AbstractPath, AbstractSchedule, check_increasing, ends_of, gamma_and_derivative
from vdmkit.testing._compile import compiled_fast
from vdmkit.testing._expect import expect, in_float64, near
from vdmkit.typing import Scalar

Scales = tuple[Float[Any, "*n"], Float[Any, "*n"], Float[Any, "*n"], Float[Any, "*n"]]
"""alpha, sigma, scale and log_alpha of a path."""
GAMMAS = (-13.0, -5.0, 0.0, 5.0)
_END = 1e-3  # tolerance of gamma at an end, larger than float32 rounding
_ROUNDING = 1e-8  # rounding of gamma in float64


def check_schedule(schedule: AbstractSchedule) -> None:
    """Checks that gamma rises from gamma_min to gamma_max and is the integral of its derivative.

    The tolerance of the ends is float32 rounding, or 1e-3 if the schedule has parameters, which training changes
    anyway.

    Raises:
        ConformanceError: an end differs, or gamma' is not positive.
        RecipeError: gamma does not rise, or jumps.
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


def check_axis(axis: AbstractAxis) -> None:
    """Checks that a label of the noise level is finite and rises with gamma, in float32 and float64.

    Raises:
        ConformanceError: one of these does not hold, or the label has another type than gamma.
    """
    _check_labels(axis)
    with jax.enable_x64(True):
        _check_labels(axis)


def _check_labels(axis: AbstractAxis) -> None:
    gammas = jnp.asarray(GAMMAS, float)
    labels = jax.jit(jax.vmap(axis))(gammas)
    expect(labels.shape == gammas.shape, f"a label of shape {labels.shape[1:]}: expected a number")
    expect(labels.dtype == gammas.dtype, f"a label of type {labels.dtype} for gamma of type {gammas.dtype}")
    found = ", ".join(f"{label:g}" for label in np.asarray(labels))
    expect(bool(np.isfinite(labels).all()), f"labels {found} are not finite")
    expect(bool((np.diff(labels) > 0).all()), f"labels {found} at gamma = {GAMMAS} do not rise")


def check_path(path: AbstractPath) -> None:
    """Checks alpha > 0, sigma / alpha = exp(gamma / 2), scale^2 = alpha^2 + sigma^2 and log_alpha = log alpha.

    Raises:
        ConformanceError: one of these does not hold.
    """
    check_scales(path, GAMMAS)


def check_scales(path: AbstractPath, gammas: tuple[float, ...]) -> None:
    """Does `check_path` at these gammas, in float32 and float64, and checks the derivative of log_alpha.

    Raises:
        ConformanceError: a check fails at one of the gammas.
    """
    _check_scales(_scales_and_slopes(path, jnp.asarray(gammas, float))[0], gammas, tolerance=1e-4)
    with jax.enable_x64(True):
        scales, slope, quotient = jax.tree.map(np.asarray, _scales_and_slopes(path, jnp.asarray(gammas, float)))
    _check_scales(scales, gammas, tolerance=1e-8)
    worst = int(abs(slope - quotient).argmax())
    expect(
        near(slope, quotient, 1e-6),
        f"the derivative of log alpha by JAX is {slope[worst]:.4g} at gamma = {gammas[worst]:.4g}, and its difference "
        f"quotient {quotient[worst]:.4g}",
    )


def _check_scales(scales: Scales, gammas: tuple[float, ...], *, tolerance: float) -> None:
    wide = (np.asarray(values, np.float64) for values in scales)
    for gamma, a, s, both, log_a in zip(gammas, *wide, strict=True):
        expect(0 < a < np.inf, f"alpha = {a:g} at gamma = {gamma:g}")
        found = 2 * np.log(s / a) if s > 0 else np.nan
        expect(near(found, gamma, tolerance), f"log sigma^2 / alpha^2 = {found:g} at gamma = {gamma:g}")
        expect(near(both / np.hypot(a, s), 1.0, tolerance), "scale is not sqrt(alpha^2 + sigma^2)")
        expect(near(log_a, np.log(a), tolerance), f"log alpha is {log_a:g}, and alpha {a:g}, at gamma = {gamma:g}")


def scales_at(path: AbstractPath, gamma: Scalar) -> Scales:
    """Returns the scales at one gamma."""
    return path.alpha(gamma), path.sigma(gamma), path.scale(gamma), path.log_alpha(gamma)


@compiled_fast
def _scales_and_slopes(path: AbstractPath, gammas: Float[Array, " n"]) -> tuple[Scales, Array, Array]:
    """Returns, at each gamma, the scales and d log_alpha / dgamma by JAX and by central differences."""
    h = 1e-4
    quotient = lambda g: (path.log_alpha(g + h) - path.log_alpha(g - h)) / (2 * h)  # noqa: E731
    return jax.vmap(lambda g: (scales_at(path, g), jax.grad(path.log_alpha)(g), quotient(g)))(gammas)


def check_grid(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> None:
    """Checks that steps + 1 gammas fall from gamma_1 to gamma_0, and that `ends_of_step` agrees with them.

    In float64, one of ten thousand steps is much larger than rounding, whose errors would add up in a bound.

    Raises:
        ConformanceError: one of these does not hold.
    """
    with jax.enable_x64(True):
        wide, of_time = in_float64((grid, schedule))
        gammas, ends = np.asarray(compiled_fast(wide)(of_time, steps), np.float64), ends_of(of_time)
        expect(gammas.shape == (steps + 1,), f"{steps} steps give {gammas.shape} gammas: expected {steps + 1}")
        found = np.asarray(_ends_of_steps(wide, of_time, steps), np.float64)
    widths = -np.diff(gammas)
    expect(bool((widths > -_ROUNDING).all()), "the gammas do not fall")
    off = abs(gammas[[-1, 0]] - ends).max()
    reach = f"they go from {gammas[0]:g} to {gammas[-1]:g}, and the schedule from {ends[1]:g} to {ends[0]:g}"
    expect(off < 1e-4, f"the ends are not the schedule's: {reach}")
    off = abs(found - np.stack([gammas[-2::-1], gammas[:0:-1]])).max(0)
    worst = int((off / (widths[::-1] + _ROUNDING)).argmax())
    width = widths[::-1][worst]
    expect(
        off[worst] <= 1e-3 * width + _ROUNDING,
        f"a step asked for by its time has gammas {off[worst]:.3g} off the grid's, where the step is of {width:.3g}",
    )


@compiled_fast
def _ends_of_steps(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> Float[Array, "2 steps"]:
    """Returns gamma_t and gamma_s of every step, from the cleanest to the noisiest."""
    of_time = jax.vmap(lambda t: jnp.stack(grid.ends_of_step(schedule, t, steps)), out_axes=1)
    return of_time(jnp.arange(1, steps + 1) / steps)


def gammas_between(schedule: AbstractSchedule) -> tuple[float, ...]:
    """Returns gammas from end to end, with unusual inner values that a component cannot special-case by accident."""
    gamma_0, gamma_1 = ends_of(schedule)
    inner = gamma_0 + (gamma_1 - gamma_0) * (np.arange(64) + np.random.default_rng(2).random(64)) / 64
    return (gamma_0, *map(float, inner), gamma_1)
