# SPDX-License-Identifier: Apache-2.0
"""The noise schedule gamma(t) = -log SNR(t), strictly increasing on [0, 1]: t = 0 is data, t = 1 is noise."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.errors import RecipeError
from vdmkit.limits import MAX_GAMMA
from vdmkit.registry import define_kind
from vdmkit.typing import Scalar

_PANELS = 8000
_PARTS = 20  # gamma must rise on each of them
_SMALLEST_PANEL = 1e-8
_TOLERANCE = 2e-3  # in gamma, which changes the bound by at most 0.0015 bits/dim
_TOLERANCE_OF_PANEL = 1e-5  # more than the rounding of a schedule that computes in float32
_SMALLEST_FALL = 1e-3  # in gamma over all of [0, 1]: float32 rounding of a derivative that is 0


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
    def __call__(self, t: Scalar) -> Scalar:
        """Returns gamma(t) for one t in [0, 1]."""


define_kind("schedule", "gamma(t) = -log SNR(t), from data (t = 0) to noise (t = 1)", AbstractSchedule, ("key",))


def gamma_and_derivative(schedule: AbstractSchedule, t: Scalar) -> tuple[Scalar, Scalar]:
    """Returns gamma(t) and dgamma/dt, by forward-mode differentiation."""
    return jax.jvp(schedule, (t,), (jnp.ones_like(t),))


def ends_of(schedule: AbstractSchedule) -> tuple[float, float]:
    """Returns gamma_0 and gamma_1, which differ from gamma_min and gamma_max if they were learned."""
    # Not compiled as one program, whose rounding would move ends that are pinned.
    return float(schedule(jnp.asarray(0, float))), float(schedule(jnp.asarray(1, float)))


def gammas_of(schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
    """Returns gamma at t = 0, 1 / T, ..., 1."""
    return jax.vmap(schedule)(jnp.arange(steps + 1) / steps)


def check_increasing(schedule: AbstractSchedule) -> None:
    """Raises RecipeError if gamma falls, jumps, or is not finite, because the bound is then invalid.

    On each of 8,000 panels of [0, 1] the rise of gamma must equal the integral of its derivative. Panels where it
    does not are halved repeatedly: the difference vanishes at a steep end and remains at a jump. Computed in float64,
    because the rounding of float32 looks like jumps.
    """
    with jax.enable_x64(True):
        _refuse_others(schedule)
        _refuse_rest(schedule)
        smooth, jumps, where = _unexplained(schedule, np.arange(_PANELS) / _PANELS, 1 / _PANELS)
    if not abs(smooth) + jumps < _TOLERANCE:
        near = f", near t = {where:.4f} it jumps" if jumps else ""
        raise RecipeError(
            f"gamma's rise is not the integral of its derivative{near}. It must be differentiable, without jumps."
        )


def check_ends(schedule: AbstractSchedule) -> None:
    """Raises RecipeError if gamma goes where z_t in float32 has lost its noise or its image: see `limits.MAX_GAMMA`."""
    ends = ends_of(schedule)
    # + 1 for the rounding of float32 at the ends of a schedule that computes alpha^2 or sigma^2
    if not all(abs(gamma) <= MAX_GAMMA + 1 for gamma in ends):  # written so that a NaN is refused
        raise RecipeError(
            f"gamma goes from {ends[0]:g} to {ends[1]:g}: expected {-MAX_GAMMA:g} to {MAX_GAMMA:g}. "
            "In float32, z_t loses its noise below this range, and its image above it."
        )


def _refuse_others(schedule: AbstractSchedule) -> None:
    """Raises RecipeError unless gamma(t) is one floating-point number."""
    gamma: Any = eqx.filter_eval_shape(schedule, jnp.zeros(()))
    if getattr(gamma, "shape", None) != () or not jnp.issubdtype(gamma.dtype, jnp.floating):
        found = f"{gamma.dtype} of shape {gamma.shape}" if hasattr(gamma, "shape") else type(gamma).__name__
        raise RecipeError(f"gamma(t) of one t is {found}: expected one floating-point number, of shape ().")


def _refuse_rest(schedule: AbstractSchedule) -> None:
    t = np.linspace(0, 1, _PARTS + 1)
    gamma = np.asarray(jax.vmap(schedule)(jnp.asarray(t)))
    rests = np.flatnonzero(~(np.diff(gamma) > 0))  # written so that a NaN is one
    if len(rests):
        i = rests[0]
        raise RecipeError(
            f"gamma does not rise: gamma({t[i]:.2f}) = {gamma[i]:g}, gamma({t[i + 1]:.2f}) = {gamma[i + 1]:g}. "
            "It must be strictly increasing on [0, 1]."
        )


def _unexplained(schedule: AbstractSchedule, low: Float[np.ndarray, " n"], width: float) -> tuple[float, float, float]:
    """Sums rise minus integrated derivative over the panels where they agree and over the panels where they do not.

    Returns:
        The two sums, and the place of the panels that disagree.
    """
    deviation, slope = _panels(schedule, low, width)
    _refuse_fall(low, slope)
    bad = abs(deviation) > _TOLERANCE_OF_PANEL
    if not bad.any() or width < _SMALLEST_PANEL:
        return float(deviation[~bad].sum()), float(abs(deviation[bad]).sum()), float(low[bad].min(initial=1.0))
    halves = np.concatenate([low[bad], low[bad] + width / 2])[:_PANELS]
    smooth, jumps, where = _unexplained(schedule, halves, width / 2)
    return float(deviation[~bad].sum()) + smooth, jumps, where


def _panels(
    schedule: AbstractSchedule, low: Float[np.ndarray, " n"], width: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns, per panel, rise minus integrated derivative (two Gauss points), and the smaller derivative."""
    padded = np.resize(low, _PANELS)  # one shape, one compilation
    offsets = width * (0.5 + np.array([[-1], [1]]) / np.sqrt(12))
    ends = np.asarray(_at(schedule, np.stack([padded, padded + width]))[0])
    slopes = np.asarray(_at(schedule, padded + offsets)[1])
    deviation = ends[1] - ends[0] - width * slopes.mean(0)
    return deviation[: len(low)], slopes.min(0)[: len(low)]


@eqx.filter_jit
def _at(schedule: AbstractSchedule, t: Float[Any, "2 n"]) -> tuple[Float[Array, "2 n"], Float[Array, "2 n"]]:
    return jax.vmap(jax.vmap(lambda t: gamma_and_derivative(schedule, t)))(jnp.asarray(t))


def _refuse_fall(low: Float[np.ndarray, " n"], slope: Float[np.ndarray, " n"]) -> None:
    falls = np.flatnonzero(~(slope >= -_SMALLEST_FALL))  # written so that a NaN is one
    if len(falls):
        raise RecipeError(
            f"gamma does not rise: its derivative is {slope[falls[0]]:g} near t = {low[falls[0]]:.4f}. "
            "It must be increasing on [0, 1]."
        )
