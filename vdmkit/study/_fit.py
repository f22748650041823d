# SPDX-License-Identifier: Apache-2.0
"""Fits a schedule to the errors of a trained model, without changing its network."""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vdmkit.losses.bound import bits_per_dim
from vdmkit.registry import Choice
from vdmkit.schedules import AbstractSchedule, Pinned
from vdmkit.study._curve import Curve
from vdmkit.study._variance import best_rate, fine, rate_of, variance

_PIECES, _FLOOR = 64, 0.01


@dataclass(frozen=True)
class Fit:
    """Variances of one draw of the bound on test images, (bits/dim)^2: before and after the fit, and the minimum."""

    before: float
    after: float
    least: float

    def __str__(self) -> str:
        return f"variance {self.before:.4f} before, {self.after:.4f} after, {self.least:.4f} at best, (bits/dim)^2"


def judge_fit(before: AbstractSchedule, after: AbstractSchedule, test: Curve, dimensions: int) -> Fit:
    """Returns the variances of two schedules between the same ends, along the curve of test images."""
    unit = float(bits_per_dim(1.0, dimensions)) ** 2
    rates = (rate_of(before, fine(test)), rate_of(after, fine(test)), best_rate(test))
    return Fit(*(unit * variance(test, rate) for rate in rates))


def choice_of_fit(gamma_min: float, gamma_max: float) -> Choice:
    """Returns the recipe's choice of the schedule to be fitted. Networks are conditioned on these ends."""
    ends = {"gamma_min": gamma_min, "gamma_max": gamma_max}
    interior = Choice("schedule", "piecewise_linear", {**ends, "pieces": _PIECES, "floor": _FLOOR})
    return Choice("schedule", "pinned", {"interior": interior, **ends, "ends": "learned"})


def fitted(curve: Curve, gamma_min: float, gamma_max: float) -> Pinned:
    """Returns the best piecewise linear schedule between the ends of the curve.

    Args:
        curve: The measured errors.
        gamma_min: Lower end of the range that scales the network's conditioning.
        gamma_max: Upper end of the range that scales the network's conditioning.
    """
    shares = np.diff(_knots(curve)) / (curve.gamma[-1] - curve.gamma[0])
    logits = np.log(np.maximum(shares - _FLOOR / _PIECES, 1e-6))
    pinned = choice_of_fit(gamma_min, gamma_max).build(key=None)
    ends = jnp.asarray(curve.gamma[[0, -1]], float)
    where = lambda p: (p.interior.logits, p.learned_ends)  # noqa: E731
    return eqx.tree_at(where, pinned, (jnp.asarray(logits, float), ends))


def _knots(curve: Curve) -> Float[np.ndarray, " n_plus_1"]:
    """Returns gamma at equally spaced times."""
    gamma, rate = fine(curve), best_rate(curve)
    time = np.concatenate([[0], np.cumsum(np.diff(gamma) * (1 / rate[:-1] + 1 / rate[1:]) / 2)])
    return np.interp(np.arange(_PIECES + 1) / _PIECES, time / time[-1], gamma)
