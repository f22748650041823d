# SPDX-License-Identifier: Apache-2.0
"""Every registered sampler converges to the data distribution with the order of its paper, in float64."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from vdmkit.predictions import Estimate
from vdmkit.process import VarianceExploding
from vdmkit.registry import Choice, registry
from vdmkit.sampling import Ancestral
from vdmkit.sampling.sampler import no_history
from vdmkit.toy_data import GaussianMixture

pytestmark = pytest.mark.statistical
PIXEL = (1, 1, 1)
WEIGHTS, MEANS, SDS = (0.4, 0.6), (-0.8, 0.6), (0.3, 0.2)
MIXTURE = GaussianMixture(PIXEL, WEIGHTS, tuple((m,) for m in MEANS), tuple((s,) for s in SDS))
NOISY, CLEAN = 2.0, -4.0
CHAINS = 2**15
KERNELS = {variance: Choice("kernel", "gaussian", {"variance": variance}) for variance in ("small", "large")}


def sampler_of(name: str, **params):
    return registry("sampler").get(name).build({}, **params)


# Orders stated in the papers, by sampler and settings. A sampler that is not listed (a plugin's) needs order 1 or more.
ORDERS = {
    "ancestral": 1,
    "ddim": 1,
    "euler": 1,
    "euler_ancestral": 1,
    "sde": 1,
    "heun": 2,
    "dpm_2": 2,
    "dpmpp_2m": 2,
    "dpmpp_2s_ancestral": 2,
    "dpmpp_3m_sde": 2,  # third order from the third step on; the first step has order 1 and the second order 2
    "lms": 2,  # order 4 from the fourth step on; the error of the first (Euler) step remains
    "ipndm": 2,  # as for lms; its weights also assume even steps
}
SETTINGS = {
    "ancestral, large": ("ancestral", {"kernel": KERNELS["large"]}, 1),
    "ddim, eta = 1/2": ("ddim", {"eta": 0.5}, 1),
    "ddim, eta = 1": ("ddim", {"eta": 1.0}, 1),
    "euler in variance": ("euler", {"axis": "variance"}, 1),
    "euler in vp_time": ("euler", {"axis": "vp_time"}, 1),
    "euler_ancestral, eta = 0": ("euler_ancestral", {"eta": 0.0}, 1),
    "heun, churn": ("heun", {"churn": 2.0}, 2),
    "heun in vp_time": ("heun", {"axis": "vp_time"}, 2),
    "dpmpp_2m, sde": ("dpmpp_2m", {"eta": 1.0}, 2),
    "dpmpp_2s_ancestral, eta = 0": ("dpmpp_2s_ancestral", {"eta": 0.0}, 2),
    "dpmpp_3m_sde, eta = 0": ("dpmpp_3m_sde", {"eta": 0.0}, 3),
    "ode by Heun's method": ("ode", {"solver": "Heun", "solver_steps": 1}, 2),
    "ode by Bogacki and Shampine's": ("ode", {"solver": "Bosh3", "solver_steps": 1}, 3),
    "sde by Heun's method": ("sde", {"solver": "Heun"}, 2),
}
# by default `ode` is adaptive: it has tolerances instead of an order
REGISTERED = sorted(registry("sampler").components.keys() - {"ode"})
CASES = {name: (name, {}, ORDERS.get(name)) for name in REGISTERED} | SETTINGS


def quantiles(gamma: float) -> np.ndarray:
    """Returns quantiles of y = x + exp(gamma / 2) eps, at the midpoints of as many equal parts as there are chains."""
    y = np.linspace(-30, 30, 600_001)
    parts = zip(WEIGHTS, MEANS, SDS, strict=True)
    below = sum(w * norm.cdf(y, m, np.hypot(s, np.exp(gamma / 2))) for w, m, s in parts)
    return np.interp((np.arange(CHAINS) + 0.5) / CHAINS, below, y)


@eqx.filter_jit
def all_chains(sampler, y, history, noise, gamma_t, gamma_s):
    """Makes a step of each chain; chains are sorted by y, so that neighbours get different noise."""
    y, history = jax.tree.map(lambda a: a[jnp.argsort(y.ravel())], (y, history))
    denoise = lambda y, gamma: MIXTURE.estimate(y, gamma, VarianceExploding())  # noqa: E731

    def step(y, history, noise):
        y, estimate = sampler.step(denoise, y, gamma_t, gamma_s, history, noise)
        return y, history.then(estimate, gamma_t)

    return jax.vmap(step)(y, history, noise)


def even_noise(n: int, rng: np.random.Generator) -> np.ndarray:
    """Returns n draws a chain that fill space evenly: a shifted Kronecker sequence of Roberts' ratios."""
    ratio = brentq(lambda r: r ** (max(n, 1) + 1) - r - 1, 1, 2)
    u = np.outer(np.arange(CHAINS), ratio ** -(1.0 + np.arange(n))) + rng.uniform(size=n)
    return norm.ppf(np.clip(u % 1, 1e-12, 1 - 1e-12)).reshape(CHAINS, n, *PIXEL)


def errors(sampler, steps: int) -> np.ndarray:
    """Returns the sorted ends of the chains minus the quantiles of the noisy data (array-RQMC, L'Ecuyer et al. 2008).

    Their mean absolute value is the Wasserstein-1 distance. Without noise a step keeps the order of the chains, so that
    these are the distances from the exact flow.
    """
    rng, gammas = np.random.default_rng(steps), jnp.linspace(NOISY, CLEAN, steps + 1)
    y = jnp.asarray(quantiles(NOISY)).reshape(-1, *PIXEL)
    history = jax.vmap(lambda _: no_history(PIXEL, jnp.asarray(steps)))(y)
    for gamma_t, gamma_s in itertools.pairwise(gammas):
        y, history = all_chains(
            sampler, y, history, jnp.asarray(even_noise(sampler.noise_draws, rng)), gamma_t, gamma_s
        )
    return np.sort(np.asarray(y).ravel()) - quantiles(CLEAN)


def limit(of_steps: np.ndarray, steps: np.ndarray, order: int) -> np.ndarray:
    """Extrapolates to infinitely many steps (Richardson): the errors are L + A / T^p + B / T^(p + 1)."""
    powers = steps[:, None] ** -np.array([0.0, order, order + 1])
    return np.linalg.solve(powers, of_steps)[0]


@pytest.mark.parametrize("case", CASES)
def test_a_sampler_reaches_the_mixture_with_its_order(case: str) -> None:
    """The sampler converges to the data distribution, with the order that its paper states."""
    name, params, order = CASES[case]
    sampler = sampler_of(name, **params)
    steps = np.array([6.0, 12.0, 24.0] if order and order > 1 else [12.0, 24.0, 48.0])
    found = np.stack([errors(sampler, int(n)) for n in steps])
    distances = abs(found).mean(1)
    slope = -np.polyfit(np.log(steps), np.log(distances), 1)[0]
    # Methods of order 1 have exactly order 1; multistep methods start with lower orders, which still affects the slope.
    assert abs(slope - 1) < 0.15 if order == 1 else slope > (order or 1) - 0.35, (slope, distances)
    # What is left of T^-(p + 2), below 3e-4, and of even noise, magnified by the extrapolation (1.5e-3 measured). Noise
    # whose standard deviation is 2% off leaves 3.7e-3 or more, even where the slope is right.
    off = abs(limit(found, steps, order or 1)).mean()
    assert off < (2.5e-3 if sampler.noise_draws else 5e-4), (off, distances)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_the_ode_ends_within_its_tolerance(tolerance: float) -> None:
    """With steps of the solver's choice the ODE sampler follows the flow to within 10 tolerances."""
    sampler = sampler_of("ode", rtol=tolerance, atol=tolerance)
    # each of some ten steps is within atol + rtol |y|, |y| at most about 1; measured: 4 tolerances at the loosest
    assert abs(errors(sampler, 1)).mean() < 10 * tolerance


def gaussian_chain(sampler, gammas, mean: float, variance: float) -> tuple[list[float], list[float]]:
    """Returns means and variances of y along a chain with the exact denoiser of N(mean, variance).

    The chain starts from the exact marginal. A step is a y + b + noise std here, so three calls determine its three
    numbers.
    """

    @jax.jit
    @jax.vmap
    def numbers(gamma_t, gamma_s):
        def denoise(y, gamma):
            eps_hat = jnp.exp(gamma / 2) / (variance + jnp.exp(gamma)) * (y - mean)
            return Estimate(y - jnp.exp(gamma / 2) * eps_hat, eps_hat)

        history = no_history(PIXEL, jnp.asarray(1))

        def step(y: float, noise: float):
            n = jnp.full((sampler.noise_draws, *PIXEL), noise)
            return sampler.step(denoise, jnp.full(PIXEL, y), gamma_t, gamma_s, history, n)[0].squeeze()

        b = step(0.0, 0.0)
        return step(1.0, 0.0) - b, b, step(0.0, 1.0) - b

    means, variances = [mean], [variance + np.exp(gammas[0])]
    for a, b, std in zip(*map(np.asarray, numbers(gammas[:-1], gammas[1:])), strict=True):
        means.append(a * means[-1] + b)
        variances.append(a**2 * variances[-1] + std**2)
    return means, variances


@pytest.mark.parametrize("steps", [1, 2, 10, 100])
@pytest.mark.parametrize("kind", ["small", "large"])
def test_ancestral_steps_have_the_exact_marginals(kind, steps: int) -> None:
    """For any T every step has the marginal q(z_t) for the data to which its variance is matched.

    Ho et al. 2020, arXiv 2006.11239, section 3.2: the small variance for x known, the large one for x ~ N(0, I).
    """
    gammas = jnp.linspace(4.0, -6.0, steps + 1)
    mean, variance = {"small": (0.7, 0.0), "large": (0.0, 1.0)}[kind]
    means, variances = gaussian_chain(Ancestral(kernel=KERNELS[kind]), gammas, mean, variance)
    np.testing.assert_allclose(means, mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(variances, variance + np.exp(gammas), rtol=1e-10)  # rounding, over 100 steps


@pytest.mark.parametrize("kind", ["small", "large"])
def test_ancestral_marginals_become_exact_as_steps_grow(kind) -> None:
    """For other Gaussians the marginals after T steps are exact up to O(1 / T)."""
    steps, errors = np.array([50, 100, 200, 400]), []
    for n in steps:
        gammas = jnp.linspace(4.0, -6.0, n + 1)
        means, variances = gaussian_chain(Ancestral(kernel=KERNELS[kind]), gammas, 0.7, 0.25)
        errors.append(max(abs(np.log(variances / (0.25 + np.exp(gammas)))).max(), abs(np.asarray(means) - 0.7).max()))
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert errors[-1] < 0.03
    assert abs(slope - 1) < 0.05, (slope, errors)
