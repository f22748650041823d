# SPDX-License-Identifier: Apache-2.0
"""Every weighting, distribution of times, prediction and observation against its paper's formula, in float64.

The formulas are written again in numpy and scipy. A registered component of vdmkit without a formula here fails, so
that every constant and sign is checked against a second source.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logit, softmax
from scipy.stats import norm

from vdmkit.decoders import DiscretisedGaussian
from vdmkit.errors import RecipeError
from vdmkit.predictions import Estimate
from vdmkit.registry import registry

GAMMAS = np.array([-9.0, -3.0, -1.0, 0.3, 2.0, 4.5])
SNR = np.exp(-GAMMAS)
RATE = 7.0  # dgamma/dt, which divides losses that are means over t


def edm_monotonic(mean: float = -1.2, std: float = 1.2, sd: float = 0.5) -> np.ndarray:
    """Returns EDM's weighting made monotonic: Kingma & Gao 2023, arXiv 2303.00848, Table 1 and App. D.1.

    In lambda = -gamma = log SNR, EDM's weighting is N(lambda; 2.4, 2.4^2) (e^-lambda + 0.5^2); below its maximum it is
    held constant.
    """

    def edm(lam):
        return norm.pdf(lam, -2 * mean, 2 * std) * (np.exp(-lam) + sd**2)

    top = minimize_scalar(lambda lam: -edm(lam), bounds=(-2 * mean - 8 * std**2, -2 * mean), options={"xatol": 1e-10})
    return edm(np.maximum(-GAMMAS, top.x)) / edm(top.x)


def of_eps(m: np.ndarray) -> np.ndarray:
    """Returns w for the loss that is the mean over t of m |eps - eps_hat|^2."""
    return 2 * m / RATE


# |x - x_hat|^2 is |eps - eps_hat|^2 / SNR. Those without settings hold the defaults to the paper's constants.
WEIGHTINGS: dict[str, list[tuple[dict, np.ndarray]]] = {
    "elbo": [({}, np.ones(6))],
    # Kingma & Gao 2023, arXiv 2303.00848: sigmoid(-lambda + 2), more weight where there is more noise
    "sigmoid": [({}, 1 / (1 + np.exp(-GAMMAS - 2))), ({"bias": -1.0}, 1 / (1 + np.exp(-GAMMAS + 1)))],
    "edm_monotonic": [
        ({}, edm_monotonic()),
        ({"mean": -0.4, "std": 1.0, "sd": 0.2}, edm_monotonic(-0.4, 1.0, 0.2)),
    ],
    "simple": [({}, of_eps(np.ones(6)))],
    "hybrid": [({}, of_eps(np.ones(6)))],  # for the mean; test_hybrid.py covers the variances
    "snr": [({}, of_eps(np.ones(6))), ({"power": 0.3}, of_eps(SNR**0.3 / SNR))],
    "truncated_snr": [({}, of_eps(np.maximum(SNR, 1) / SNR))],  # Salimans & Ho 2022, arXiv 2202.00512, eq. 9
    # Hang et al. 2023, arXiv 2303.09556, section 3.4: min(SNR, 5)
    "min_snr": [({}, of_eps(np.minimum(SNR, 5) / SNR)), ({"limit": 0.5}, of_eps(np.minimum(SNR, 0.5) / SNR))],
    # Choi et al. 2022, arXiv 2204.00227, eq. 8, on |eps - eps_hat|^2; k = 1 and power 1 are theirs
    "p2": [({}, of_eps(1 / (1 + SNR))), ({"k": 0.5, "power": 0.7}, of_eps((0.5 + SNR) ** -0.7))],
    "v": [({}, of_eps((SNR + 1) / SNR))],  # Salimans & Ho 2022, App. D
    "velocity": [({}, of_eps((1 + 1 / np.sqrt(SNR)) ** 2))],  # alpha = 1 - sigma: eps - x errs by (1 + sigma / alpha)
    # Karras et al. 2022, arXiv 2206.00364, Table 1: (s^2 + sd^2) / (s sd)^2 of |x - x_hat|^2, s^2 = 1 / SNR, sd = 0.5
    "edm": [
        ({}, of_eps((1 / SNR + 0.5**2) / (1 / SNR * 0.5**2) / SNR)),
        ({"sd": 0.3}, of_eps((1 / SNR + 0.3**2) / (1 / SNR * 0.3**2) / SNR)),
    ],
}


def logit_normal(mean: float, std: float, uniform: float) -> tuple[Callable, Callable]:
    """CDF and density of Esser et al. 2024, arXiv 2403.03206, eq. 19, mixed with a share of uniform times."""
    law = norm(mean, std)
    below = lambda t: uniform * t + (1 - uniform) * law.cdf(logit(t))  # noqa: E731
    density = lambda t: uniform + (1 - uniform) * law.pdf(logit(t)) / (t * (1 - t))  # noqa: E731
    return below, density


def signal(low: float, high: float) -> tuple[Callable, Callable]:
    """Returns CDF and density ~ alpha^2 of gamma = low + (high - low) t: Zheng et al. 2023, arXiv 2305.03935.

    The integral of alpha^2 from gamma to infinity is log(1 + e^-gamma).
    """
    gamma = lambda t: low + (high - low) * t  # noqa: E731
    beyond = lambda g: np.logaddexp(0, -g)  # noqa: E731
    whole = beyond(low) - beyond(high)
    below = lambda t: (beyond(low) - beyond(gamma(t))) / whole  # noqa: E731
    density = lambda t: (high - low) / (1 + np.exp(gamma(t))) / whole  # noqa: E731
    return below, density


EVEN = lambda t: t, np.ones_like
# by name: settings, CDF of t, density of t
TIMES: dict[str, list[tuple[dict, Callable, Callable]]] = {
    "uniform": [({}, *EVEN)],
    "low_discrepancy": [({}, *EVEN)],
    "loss_adaptive": [({}, *EVEN)],  # without losses; see test_loss_adaptive.py for the adapted density
    "discrete_grid": [({}, *EVEN)],
    "logit_normal": [
        ({}, *logit_normal(0.0, 1.0, 0.1)),
        ({"mean": 0.8, "std": 1.6, "uniform": 0.25}, *logit_normal(0.8, 1.6, 0.25)),
    ],
    "signal": [({}, *signal(-13.3, 5.0)), ({"gamma_min": -8.0, "gamma_max": 4.0}, *signal(-8.0, 4.0))],
}

# Output of an ideal network, as a function of (x, eps, alpha, sigma).
OUTPUTS: dict[str, tuple[dict, Callable]] = {
    "eps": ({}, lambda x, eps, alpha, sigma: eps),
    # Nichol & Dhariwal 2021, arXiv 2102.09672: eps, and a number that x_hat and eps_hat do not depend on
    "eps_and_range": ({}, lambda x, eps, alpha, sigma: np.stack([eps, x], axis=-1)),
    "x": ({}, lambda x, eps, alpha, sigma: x),
    # Salimans & Ho 2022, arXiv 2202.00512, section 4, of the alpha and sigma whose squares add up to 1
    "v": ({}, lambda x, eps, alpha, sigma: (alpha * eps - sigma * x) / np.hypot(alpha, sigma)),
    "with_range": ({}, lambda x, eps, alpha, sigma: np.stack([OUTPUTS["v"][1](x, eps, alpha, sigma), x], axis=-1)),
    # Song et al. 2021, arXiv 2011.13456: grad log N(z; alpha x, sigma^2) = -(z - alpha x) / sigma^2
    "score": ({}, lambda x, eps, alpha, sigma: -eps / sigma),
    # Lipman et al. 2023, arXiv 2210.02747, from data to noise: d/dsigma ((1 - sigma) x + sigma eps)
    "velocity": ({}, lambda x, eps, alpha, sigma: eps - x),
    # Zheng et al. 2023, arXiv 2305.03935, of norm 1 if x and eps have it
    "unit_velocity": ({}, lambda x, eps, alpha, sigma: (eps - x) / np.sqrt(2)),
    "edm": ({"sd": 0.4}, lambda x, eps, alpha, sigma: edm_output(x, eps, sigma / alpha, 0.4)),
}
# Distributions over levels are tested in test_predictions.py, exact ones in test_oracle.py and test_bayes.py.
OF_LEVELS = {"categorical", "lattice", "exact", "exact_given_label"}


def edm_output(x, eps, s, sd):
    """Returns F of D = c_skip y + c_out F (Karras et al. 2022, arXiv 2206.00364, Table 1) for D = x, y = x + s eps."""
    return (x - sd**2 / (s**2 + sd**2) * (x + s * eps)) * np.sqrt(s**2 + sd**2) / (s * sd)


LEVELS = 5


def of_categorical(z: float, gamma: float, x_hat: float) -> np.ndarray:
    """Kingma et al. 2021, arXiv 2107.00630v6, section 3.3: proportional to N(z_0; alpha_0 x, sigma_0^2)."""
    return softmax(norm.logpdf(z, -1 + 1 / LEVELS + 2 / LEVELS * np.arange(LEVELS), np.exp(gamma / 2)))


def of_discretised(z: float, gamma: float, x_hat: float, sd: float = 0.3) -> np.ndarray:
    """Ho et al. 2020, arXiv 2006.11239, eq. 13, by the exact distribution function, with sd = 0.3."""
    edges = np.concatenate([[-np.inf], (2 * np.arange(LEVELS - 1) + 1) / (LEVELS - 1) - 1, [np.inf]])
    return np.diff(norm.cdf(edges, x_hat, sd))


OBSERVATIONS = {
    "categorical": ({}, of_categorical, {"rtol": 1e-12}),
    # improved-diffusion's tanh errs by at most 2e-4 at each edge
    "discretised_gaussian": ({"sd": 0.3}, of_discretised, {"rtol": 0, "atol": 4e-4}),
}
CONTINUOUS = {"gaussian"}

FORMULAS = {
    "weighting": set(WEIGHTINGS),
    "time_sampler": set(TIMES),
    "prediction": OUTPUTS.keys() | OF_LEVELS,
    "observation": OBSERVATIONS.keys() | CONTINUOUS,
}


def cases(kind: str, formulas: dict) -> list:
    """Returns (name, settings, expected ...) for the registered components."""
    known = {name: formulas[name] for name in sorted(formulas.keys() & registry(kind).components.keys())}
    every = [(name, *case) for name, some in known.items() for case in some]
    return [pytest.param(*case, id=f"{case[0]} {case[1]}") for case in every]


@pytest.mark.parametrize("kind", FORMULAS)
def test_every_component_has_a_formula(kind: str) -> None:
    """Every component of vdmkit has a formula in this file."""
    own = {name for name, component in registry(kind).components.items() if component.origin == "vdmkit"}
    assert own <= FORMULAS[kind]


@pytest.mark.parametrize(("name", "settings", "expected"), cases("weighting", WEIGHTINGS))
def test_weightings(name: str, settings: dict, expected: np.ndarray) -> None:
    """Every weighting equals its paper's formula, with the paper's constants as defaults."""
    weighting = registry("weighting").get(name).build({}, **settings)
    found = jax.vmap(lambda gamma: weighting(gamma, jnp.asarray(RATE)))(jnp.asarray(GAMMAS))
    # edm_monotonic searches for its maximum on a grid of spacing 0.01; the curvature is below 0.3
    np.testing.assert_allclose(found, expected, rtol=1e-5 if name == "edm_monotonic" else 1e-12)


@pytest.mark.parametrize(("name", "settings", "below", "density"), cases("time_sampler", TIMES))
def test_times(name: str, settings: dict, below: Callable, density: Callable) -> None:
    """Times follow the paper's distribution, and their weights are the inverse of its density."""
    n, times = 4096, registry("time_sampler").get(name).build({}, **settings)
    t, weight = (np.asarray(part, np.float64) for part in times(n, key=jax.random.key(5)))
    np.testing.assert_allclose(1 / weight, density(t), rtol=1e-6)  # quantiles are clipped, 1e-6 from both ends
    # Independent times: Kolmogorov's distance, above 2.7 / sqrt(n) once in 1e6. The others are even, each with a place
    # that is 1 / n wide, and those on the grid of 1,000 are up to 1 / 2000 away from it.
    limit = 2.7 / np.sqrt(n) if name == "uniform" else 1.01 / n + (1 / 2000 if name == "discrete_grid" else 0)
    assert abs(below(np.sort(t)) - (np.arange(n) + 0.5) / n).max() < limit


@pytest.mark.parametrize(("settings", "steps"), [({}, 1000), ({"steps": 8}, 8)])
def test_a_grid_of_times_is_of_midpoints(settings: dict, steps: int) -> None:
    """Every interval is visited equally often, at its midpoint: the mean is the midpoint rule's."""
    t, _ = registry("time_sampler").get("discrete_grid").build({}, **settings)(3 * steps, key=jax.random.key(6))
    np.testing.assert_allclose(np.sort(t), np.repeat((np.arange(steps) + 0.5) / steps, 3), rtol=1e-12)


@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_predictions(path, name: str) -> None:
    """The output of an ideal network in the paper's parametrisation is read back as exactly x and eps."""
    settings, output = OUTPUTS[name]
    prediction = registry("prediction").get(name).build({}, **settings)
    x, eps = np.random.default_rng(0).normal(size=(2, 2, 2, 1))
    for gamma in jnp.asarray(GAMMAS):
        alpha, sigma = float(path.alpha(gamma)), float(path.sigma(gamma))
        given = jnp.asarray(output(x, eps, alpha, sigma)).reshape(*x.shape, prediction.outputs)
        estimate = prediction(given, jnp.asarray(alpha * x + sigma * eps), gamma, path)
        # the 2x2 solve magnifies rounding by the ratio of sigma and alpha, 90 at most, both ways
        np.testing.assert_allclose(estimate.x_hat, x, rtol=0, atol=1e-11)
        np.testing.assert_allclose(estimate.eps_hat, eps, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", sorted(OBSERVATIONS))
def test_observations(name: str) -> None:
    """Every decoder gives the levels the probabilities of its paper."""
    settings, expected, tolerance = OBSERVATIONS[name]
    observation = registry("observation").get(name).build({"levels": LEVELS}, **settings)
    every = jnp.arange(LEVELS).astype(jnp.uint8).reshape(-1, 1, 1, 1)
    for gamma in (-3.0, -1.0):
        z, x_hat = (jnp.full((1, 1, 1), value) for value in (0.15, 0.1))
        known = lambda: Estimate(x_hat, x_hat)  # noqa: B023, E731
        found = jax.vmap(lambda k: observation.log_prob(k, z, jnp.asarray(gamma), known))(every)  # noqa: B023
        np.testing.assert_allclose(np.exp(found), expected(0.15, gamma, 0.1), **tolerance)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_decoder_with_learned_variances(share: float) -> None:
    """The last step is iDDPM's, arXiv 2102.09672, eq. 15: variance sd^2 at v = 0, beta_1 at v = 1."""
    observation = DiscretisedGaussian(LEVELS, sd=0.2, learned=True, clip=True)
    gamma, (z, x_hat, v) = jnp.asarray(-1.0), (jnp.full((1, 1, 1), value) for value in (0.15, 1.7, share))
    found = observation.log_probs(z, gamma, lambda: Estimate(x_hat, x_hat, None, v)).ravel()
    beta = 1 / (1 + np.exp(1.0))  # sigma_0^2
    sd = beta ** (share / 2) * 0.2 ** (1 - share)
    np.testing.assert_allclose(np.exp(found), of_discretised(0.15, -1.0, 1.0, sd), atol=4e-4)
    with pytest.raises(RecipeError, match="learned = true: the prediction learns no variances"):
        observation.log_probs(z, gamma, lambda: Estimate(x_hat, x_hat))


def test_the_discretised_gaussian_is_as_wide_as_ddpms() -> None:
    """The default sd is the root of the variance of q(x_1 | x_2, x_0) under Ho et al.'s betas."""
    beta_1, beta_2 = np.linspace(1e-4, 0.02, 1000)[:2]
    variance = beta_2 * beta_1 / (1 - (1 - beta_1) * (1 - beta_2))  # arXiv 2006.11239, eq. 7
    default = registry("observation").get("discretised_gaussian").build({"levels": 256}).sd
    np.testing.assert_allclose(default, np.sqrt(variance), rtol=5e-3)  # the default has two digits


def test_the_continuous_observation_is_a_normal_density() -> None:
    """The density of continuous data given z_0 is N(z_0 / alpha_0, e^gamma_0), in nats."""
    observation = registry("observation").get("gaussian").build({"levels": 0})
    x, z = np.random.default_rng(1).normal(size=(2, 2, 2, 1))
    found = observation.log_prob(jnp.asarray(x), jnp.asarray(z), jnp.asarray(-1.3), lambda: Estimate(z, z))
    np.testing.assert_allclose(found, norm.logpdf(x, z, np.exp(-0.65)).sum(), rtol=1e-12)
