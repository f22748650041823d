# SPDX-License-Identifier: Apache-2.0
"""Every schedule, path and grid against its paper's formula, in float64.

The formulas are written again in numpy and scipy. A registered component of vdmkit without a formula here fails, so
that every constant and sign is checked against a second source.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import cauchy, laplace, norm

from vdmkit.registry import Choice, registry
from vdmkit.schedules import FixedLinear

T = np.linspace(0, 1, 33)
KEY = jax.random.key(0, impl="rbg")
Formula = Callable[[np.ndarray], np.ndarray]


def line(first: float, last: float) -> np.ndarray:
    return first + (last - first) * T


def cosine(low: float = -13.3, high: float = 5.0, at: np.ndarray = T) -> np.ndarray:
    """alpha = cos u, sigma = sin u (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17), rescaled to the given ends."""
    first, last = np.arctan(np.exp(np.array([low, high]) / 2))
    u = first + (last - first) * at
    return np.log(np.sin(u) ** 2 / np.cos(u) ** 2)


def of_alpha2(alpha2: np.ndarray) -> np.ndarray:
    return np.log((1 - alpha2) / alpha2)


def sigmoid_of_chen(start: float, end: float, tau: float, low: float, high: float) -> np.ndarray:
    """Chen 2023, arXiv 2301.10972, algorithm 1, `sigmoid_schedule`: alpha^2 from 1 to 0, here between the ends."""
    v_start, v_end = expit(np.array([start, end]) / tau)
    falls = (v_end - expit((T * (end - start) + start) / tau)) / (v_end - v_start)
    return of_alpha2(expit(-high) + (expit(-low) - expit(-high)) * falls)


def quantiles(law, low: float, high: float) -> np.ndarray:
    """Returns evenly spaced quantiles of a distribution that is truncated at both ends."""
    return law.ppf(line(*law.cdf([low, high])))


def karras(low: float, high: float, rho: float) -> np.ndarray:
    """Returns 2 log sigma_i of Karras et al. 2022, arXiv 2206.00364, eq. 5, in rising order."""
    return 2 * np.log(line(low ** (1 / rho), high ** (1 / rho)) ** rho)


def integral_of_beta(epsilon: float) -> np.ndarray:
    """Integrates beta from 0.1 to 20: Song et al. 2021, arXiv 2011.13456, App. C."""
    s = epsilon + (1 - epsilon) * T
    return 0.1 * s + 19.9 * s**2 / 2


def table(betas: np.ndarray) -> np.ndarray:
    """Interpolates gamma linearly between the betas (Ho et al. 2020, arXiv 2006.11239, eq. 4)."""
    return np.interp(T, np.linspace(0, 1, len(betas)), of_alpha2(np.cumprod(1 - betas)))


ENDS = {"gamma_min": -7.0, "gamma_max": 3.0}
E_1, E_2 = np.exp(-3.5), np.exp(1.5)
# by name: settings, and gamma at T. Those without settings hold the defaults to the paper's constants.
SCHEDULES: dict[str, list[tuple[dict, np.ndarray]]] = {
    "fixed_linear": [({}, line(-13.3, 5.0)), (ENDS, line(-7, 3))],
    "learned_linear": [({}, line(-13.3, 5.0)), (ENDS, line(-7, 3))],
    # Untrained; trained ones are in test_schedules.py. The mean of |N(0, 0.01^2)| |N(0, 0.01^2)| tanh is below 1e-4.
    "learned_monotone": [({}, line(-13.3, 5.0)), (ENDS, line(-7, 3))],
    "cosine": [({}, cosine()), (ENDS, cosine(-7, 3))],
    # Hoogeboom et al. 2023, arXiv 2301.11093, eq. 4: log SNR + 2 log(64 / d), and gamma = -log SNR; d = 128 by default
    "shifted_cosine": [
        ({}, cosine() - 2 * np.log(64 / 128)),
        (ENDS | {"resolution": 256.0}, cosine(-7, 3) - 2 * np.log(64 / 256)),
        ({"resolution": 32.0, "base": 32.0}, cosine()),
    ],
    # Lipman et al. 2023, arXiv 2210.02747: sigma = u = 1 - alpha
    "flow_matching": [
        ({}, 2 * np.log((u := line(*expit([-6.65, 6.65]))) / (1 - u))),
        (ENDS, 2 * np.log((v := line(*expit([-3.5, 1.5]))) / (1 - v))),
    ],
    # Song et al. 2021, arXiv 2011.13456, App. C: sigma_min (sigma_max / sigma_min)^t, from 0.01 to 50
    "log_linear": [({}, 2 * np.log(0.01 * (50 / 0.01) ** T))],
    "karras": [({}, karras(0.002, 80, 7)), ({"sigma_min": 0.1, "sigma_max": 9.0, "rho": 3.0}, karras(0.1, 9, 3))],
    # Karras et al. 2022, arXiv 2206.00364, Table 1: log sigma ~ N(-1.2, 1.2^2)
    "log_normal": [
        ({}, 2 * quantiles(norm(-1.2, 1.2), np.log(0.002), np.log(80))),
        ({"mean": 0.4, "std": 2.0, "sigma_min": E_1, "sigma_max": E_2}, 2 * quantiles(norm(0.4, 2), -3.5, 1.5)),
    ],
    "sigmoid": [
        ({}, sigmoid_of_chen(-3, 3, 1, -13.3, 5)),
        (ENDS | {"start": 0.0, "end": 3.0, "tau": 0.7}, sigmoid_of_chen(0, 3, 0.7, -7, 3)),
    ],
    "linear_beta": [({}, np.log(np.expm1(integral_of_beta(1e-5))))],
    # Song et al. 2021, arXiv 2011.13456, eq. 14: sigma = 1 - e^-B where alpha = e^(-B / 2)
    "sub_vp_linear_beta": [({}, 2 * np.log(-np.expm1(-(b := integral_of_beta(1e-5)))) + b)],
    "tabulated": [
        ({}, table(np.linspace(1e-4, 0.02, 1000))),
        ({"betas": (0.1, 0.3, 0.2, 0.6)}, table(np.array([0.1, 0.3, 0.2, 0.6]))),
    ],
    "piecewise_linear": [({"pieces": 5}, -13.3 + 18.3 * T)],  # at initialisation
    # Kingma et al. 2021, arXiv 2107.00630v6, eq. 59
    "pinned": [(ENDS | {"interior": Choice("schedule", "cosine")}, -7 + 10 / 18.3 * (cosine(at=T) + 13.3))],
    # Hang et al. 2024, arXiv 2407.03297, Table 1; from plugins in this repository
    "laplace": [(ENDS | {"mean": -1.0, "width": 0.7}, quantiles(laplace(-1, 0.7), -7, 3))],
    "cauchy": [(ENDS | {"mean": -1.0, "width": 0.7}, quantiles(cauchy(-1, 0.7), -7, 3))],
}

PATHS: dict[str, tuple[Formula, Formula]] = {  # alpha and sigma as functions of r = sigma / alpha
    "variance_preserving": (lambda r: 1 / np.sqrt(1 + r**2), lambda r: r / np.sqrt(1 + r**2)),
    "variance_exploding": (np.ones_like, lambda r: r),
    # sigma = 1 - alpha^2 (Song et al. 2021, arXiv 2011.13456, eq. 14), a quadratic equation in alpha
    "sub_variance_preserving": (lambda r: (np.sqrt(r**2 + 4) - r) / 2, lambda r: 1 - (np.sqrt(r**2 + 4) - r) ** 2 / 4),
    "straight_line": (lambda r: 1 / (1 + r), lambda r: r / (1 + r)),
}

# gamma at i = 0, ..., 5 of 5 steps down FixedLinear from 5 to -13.3
LEFT = 1 - np.arange(6) / 5
TIMES = (1.0, 0.7, 0.5, 0.2, 0.1, 0.0)
GRIDS: dict[str, list[tuple[dict, np.ndarray]]] = {
    "uniform": [({}, -13.3 + 18.3 * LEFT)],
    "quadratic": [({}, -13.3 + 18.3 * LEFT**2)],  # Song et al. 2021, arXiv 2010.02502, App. D.2: t ~ i^2
    "gamma": [({}, -13.3 + 18.3 * LEFT)],  # even in gamma, like this schedule; see below for a nonlinear one
    "karras": [
        ({}, 14 * np.log((r := np.exp(np.array([5, -13.3]) / 14))[0] + np.arange(6) / 5 * (r[1] - r[0]))),
        ({"rho": 3.0}, 6 * np.log((q := np.exp(np.array([5, -13.3]) / 6))[0] + np.arange(6) / 5 * (q[1] - q[0]))),
    ],
    "tabulated": [({"times": TIMES}, -13.3 + 18.3 * np.array(TIMES))],
    "gammas": [({"gammas": (4.0, 2.0, 1.0, 0.5, -3.0, -4.0)}, 5 + 18.3 / 8 * np.array([0, -2, -3, -3.5, -7, -8.0]))],
}
FORMULAS = {"schedule": SCHEDULES, "path": PATHS, "grid": GRIDS}


def cases(kind: str, formulas: dict) -> list:
    """Returns (name, settings, expected) for the registered components; plugins may be missing."""
    known = {name: formulas[name] for name in sorted(formulas.keys() & registry(kind).components.keys())}
    every = [(name, *case) for name, some in known.items() for case in some]
    return [pytest.param(*case, id=f"{case[0]} {case[1]}") for case in every]


@pytest.mark.parametrize("kind", FORMULAS)
def test_every_component_has_a_formula(kind: str) -> None:
    """Every component of vdmkit has a formula in this file."""
    own = {name for name, component in registry(kind).components.items() if component.origin == "vdmkit"}
    assert own <= FORMULAS[kind].keys()


@pytest.mark.costly
@pytest.mark.parametrize(("name", "settings", "gamma"), cases("schedule", SCHEDULES))
def test_schedules(name: str, settings: dict, gamma: np.ndarray) -> None:
    """Every schedule equals its paper's gamma at all times, with the paper's constants as defaults."""
    schedule = registry("schedule").get(name).build({"key": KEY}, **settings)
    found = jax.vmap(schedule)(jnp.asarray(T))
    # Computing 1 - alpha^2 loses a factor of exp(13.3), 6 of 16 digits.
    np.testing.assert_allclose(found, gamma, rtol=0, atol=2e-4 if name == "learned_monotone" else 1e-9)


@pytest.mark.parametrize("name", sorted(PATHS.keys() & registry("path").components.keys()))
def test_paths(name: str) -> None:
    """Every path scales signal and noise as its paper does at the same SNR."""
    path, gamma = registry("path").get(name).build({}), np.linspace(-13, 9, 12)
    alpha, sigma = (formula(np.exp(gamma / 2)) for formula in PATHS[name])
    # 1 - alpha^2 of sub-VP loses three digits where sigma is 1e-3, and its alpha four where it is 1e-2
    np.testing.assert_allclose(jax.vmap(path.alpha)(jnp.asarray(gamma)), alpha, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(path.sigma)(jnp.asarray(gamma)), sigma, rtol=1e-10)


@pytest.mark.parametrize(("name", "settings", "gammas"), cases("grid", GRIDS))
def test_grids(name: str, settings: dict, gammas: np.ndarray) -> None:
    """Every grid places its steps where its paper does."""
    grid = registry("grid").get(name).build({}, **settings)
    np.testing.assert_allclose(grid(FixedLinear(), 5), gammas, rtol=0, atol=1e-12)  # rounding of gamma = 13


def test_a_grid_even_in_gamma_is_not_one_even_in_time() -> None:
    """The `gamma` grid is even in gamma under a nonlinear schedule, unlike the `uniform` grid."""
    schedule = registry("schedule").get("cosine").build({})
    even, of_time = (registry("grid").get(name).build({})(schedule, 5) for name in ("gamma", "uniform"))
    np.testing.assert_allclose(even, np.linspace(5, -13.3, 6), rtol=0, atol=1e-12)
    np.testing.assert_allclose(of_time, cosine(at=LEFT), rtol=0, atol=1e-9)
