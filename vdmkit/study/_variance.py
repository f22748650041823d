# SPDX-License-Identifier: Apache-2.0
"""The variance of the bound's estimate from one uniform t, for any schedule between the same ends.

With L = gamma'(t) e / 2, e = |eps - eps_hat|^2, M = E e, M_2 = E e^2, and gamma' = dgamma/dt as a function of gamma,

    E L = 1/2 int M dgamma        E L^2 = 1/4 int gamma' M_2 dgamma  >=  (1/2 int sqrt(M_2) dgamma)^2,

with equality for gamma' ~ 1 / sqrt(M_2) (Kingma et al. 2021, arXiv 2107.00630v6, section 5.1 and App. I.2).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vdmkit.schedules import AbstractSchedule, gamma_and_derivative
from vdmkit.study._curve import Curve

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
