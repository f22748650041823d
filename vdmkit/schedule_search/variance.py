# SPDX-License-Identifier: Apache-2.0
"""The variance of the bound's estimate from one uniform t, for any schedule between the same ends.

With L = gamma'(t) e / 2, e = |eps - eps_hat|^2, M = E e, M_2 = E e^2, and gamma' = dgamma/dt as a function of gamma,

    E L = 1/2 int M dgamma        E L^2 = 1/4 int gamma' M_2 dgamma  >=  (1/2 int sqrt(M_2) dgamma)^2,

with equality for gamma' ~ 1 / sqrt(M_2) (Kingma et al. 2021, arXiv 2107.00630v6, section 5.1 and App. I.2).

Fits a schedule to the errors of a trained model, without changing its network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vdmkit.losses.bound import bits_per_dim
from vdmkit.registry import Choice
from vdmkit.schedule_search.measurement import Curve
from vdmkit.schedules import AbstractSchedule, Pinned, gamma_and_derivative

FINE = 2001
_TIMES = 20_001


def fine(curve: Curve) -> Float[np.ndarray, " m"]:
    """Returns a grid of gammas that is fine enough for numerical integration."""
    return np.linspace(curve.gamma[0], curve.gamma[-1], FINE)


def rate_of(schedule: AbstractSchedule, gamma: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Returns gamma' at these gammas for the schedule rescaled linearly to range from the first to the last of them."""
    with jax.enable_x64(True):
        t = jnp.linspace(0.0, 1.0, _TIMES)
        raw, slope = (np.asarray(a) for a in jax.jit(jax.vmap(lambda t: gamma_and_derivative(schedule, t)))(t))
    stretch = (gamma[-1] - gamma[0]) / (raw[-1] - raw[0])
    return np.interp(gamma, gamma[0] + stretch * (raw - raw[0]), stretch * slope)


def best_rate(curve: Curve) -> Float[np.ndarray, " m"]:
    """Returns gamma' ~ 1 / sqrt(M_2) at the fine gammas, scaled to unit time."""
    return _best_rate(fine(curve), curve.second_moment(fine(curve)))


def variance(curve: Curve, rate: Float[np.ndarray, " m"]) -> float:
    """Returns the variance of L over images, t and eps, for gamma' = `rate` at the fine gammas, nats^2."""
    return float(_variances(curve, [rate])[0])


def variances_with_errors(
    curve: Curve, rates: Sequence[Float[np.ndarray, " m"] | None], resamples: int = 200
) -> Float[np.ndarray, "n 3"]:
    """Returns the variance for each rate (None is the best one), and its 95% interval by the bootstrap over images."""
    rng, n = np.random.default_rng(0), curve.error.shape[2]
    again = [_variances(curve.of_images(rng.integers(n, size=n)), rates) for _ in range(resamples)]
    return np.stack([_variances(curve, rates), *np.percentile(again, [2.5, 97.5], axis=0)], axis=1)


def _variances(curve: Curve, rates: Sequence[Float[np.ndarray, " m"] | None]) -> Float[np.ndarray, " n"]:
    """Returns the variance of L for each rate (None is the best one), nats^2."""
    gamma = fine(curve)
    second, first = curve.second_moment(gamma), np.trapezoid(curve.mean(gamma), gamma) / 2
    best = _best_rate(gamma, second)
    squares = [np.trapezoid((best if rate is None else rate) * second, gamma) / 4 for rate in rates]
    return np.asarray(squares) - first**2


def _best_rate(gamma: Float[np.ndarray, " m"], second: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    return np.trapezoid(np.sqrt(second), gamma) / np.sqrt(second)


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
