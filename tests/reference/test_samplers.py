# SPDX-License-Identifier: Apache-2.0
"""The samplers against those of k-diffusion, EDM and improved-diffusion, on an exact denoiser, in float64.

All use the same start, noise and data, a Gaussian mixture. Their latent of sigma is vdmkit's y = z / alpha at
gamma = 2 log sigma. Their last step leads to sigma = 0, where gamma is -inf.

The formulas are the same in a different order, so the difference is rounding of some 1e-15 a step, magnified by steps
from sigma = 80 and where a chain passes between two components. 1e-12 was measured.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.decoders import GaussianObservation
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.process import KarrasGrid, UniformInGamma, UniformInTime, VariancePreserving
from vdmkit.registry import Choice
from vdmkit.sampling import (
    Ancestral,
    Ddim,
    Dpm2,
    DpmPlusPlus2M,
    DpmPlusPlus2SAncestral,
    DpmPlusPlus3MSde,
    Euler,
    EulerAncestral,
    Heun,
    Lms,
)
from vdmkit.sampling.sampler import denoiser_of, no_history
from vdmkit.schedules import FixedLinear, LinearBeta, Tabulated
from vdmkit.toy_data import Exact

ROUNDING = 1e-7


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def model(mixture) -> DiffusionModel:
    return DiffusionModel(
        schedule=FixedLinear(),
        path=VariancePreserving(),
        prediction=Exact(mixture),
        network=NoNetwork(1),
        observation=GaussianObservation(0),
        shape=mixture.shape,
    )


@eqx.filter_jit
def one_step(model, sampler, y, history, gamma_t, gamma_s, noise):
    def one(y, history, noise):
        y, estimate = sampler.step(denoiser_of(model), y, gamma_t, gamma_s, history, noise)
        return y, history.then(estimate, gamma_t)

    return jax.vmap(one)(y, history, noise)


def chain(model, sampler, start, gammas, noise=None):
    """Runs from `start` (n, h, w, c), y at the first of the gammas, to the last, with one row of noise per step."""
    y, gammas = jnp.asarray(start), jnp.asarray(gammas)
    steps = len(gammas) - 1
    history = jax.vmap(lambda _: no_history(model.shape, jnp.asarray(steps)))(y)
    noise = np.zeros((steps, *y.shape)) if noise is None else noise
    for i in range(steps):
        draws = jnp.asarray(noise[i])[:, None][:, : sampler.noise_draws]
        y, history = one_step(model, sampler, y, history, gammas[i], gammas[i + 1], draws)
    return y


def error(found, expected) -> float:
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


def test_the_mixture_is_the_same(model, figures) -> None:
    """Both sides use the same denoiser."""
    data = figures("mixture")
    gamma = 2 * jnp.log(jnp.asarray(data["check_sigma"]))
    found = jax.vmap(lambda y, gamma: denoiser_of(model)(y, gamma).x_hat)(jnp.asarray(data["check_y"]), gamma)
    assert error(found, data["check_denoised"]) < 1e-13


K_DIFFUSION = {
    "euler": Euler(),
    "heun": Heun(),
    "dpm_2": Dpm2(),
    "lms": Lms(),
    "dpmpp_2m": DpmPlusPlus2M(),
    "euler_ancestral": EulerAncestral(),
    "dpmpp_2s_ancestral": DpmPlusPlus2SAncestral(),
    "dpmpp_2m_sde": DpmPlusPlus2M(eta=1.0),
    "dpmpp_3m_sde": DpmPlusPlus3MSde(),
}


@pytest.mark.costly
@pytest.mark.parametrize("name", K_DIFFUSION)
def test_k_diffusion(model, figures, name: str) -> None:
    """Chains of k-diffusion's samplers equal the reference up to rounding."""
    found = figures("k_diffusion")
    with np.errstate(divide="ignore"):
        gammas = 2 * np.log(found["sigmas/karras"])
    end = chain(model, K_DIFFUSION[name], found["start"], gammas, found["noise"])
    assert error(end, found[name]) < ROUNDING


@pytest.mark.parametrize(("name", "grid"), [("karras", KarrasGrid()), ("exponential", UniformInGamma())])
def test_grids_of_k_diffusion(figures, name: str, grid) -> None:
    """The grids have the noise levels of k-diffusion."""
    sigmas = figures("k_diffusion")[f"sigmas/{name}"]
    schedule = FixedLinear(gamma_min=float(2 * np.log(sigmas[-2])), gamma_max=float(2 * np.log(sigmas[0])))
    np.testing.assert_allclose(np.exp(grid(schedule, len(sigmas) - 2) / 2), sigmas[:-1], rtol=1e-12)
    assert sigmas[-1] == 0


def test_vp_grid_of_k_diffusion(figures) -> None:
    """A grid uniform in time on the VP SDE has the noise levels of k-diffusion."""
    sigmas = figures("k_diffusion")["sigmas/vp"]
    grid = UniformInTime()(LinearBeta(epsilon=1e-3), len(sigmas) - 2)
    np.testing.assert_allclose(np.exp(grid / 2), sigmas[:-1], rtol=1e-12)


def edm_gammas(steps: int) -> np.ndarray:
    schedule = FixedLinear(gamma_min=2 * math.log(0.002), gamma_max=2 * math.log(80))
    return np.append(KarrasGrid()(schedule, steps - 1), -np.inf)


def test_edm_sampler(model, figures) -> None:
    """EDM's grid and Heun's method give EDM's samples for every number of steps."""
    found = figures("edm")
    names = [name for name in found if name.startswith("edm/steps")]
    assert names
    for name in names:
        steps = int(name.removeprefix("edm/steps").removesuffix("/x"))
        assert error(chain(model, Heun(), 80 * found["latents"], edm_gammas(steps)), found[name]) < ROUNDING, name


def test_edm_sampler_with_churn(model, figures) -> None:
    """Heun's method with churn adds the same noise as EDM's sampler."""
    found = figures("edm")
    noise = found["edm/churn/noise"]
    sampler = Heun(churn=40.0, s_min=0.05, s_max=50.0, s_noise=1.003)
    end = chain(model, sampler, 80 * found["latents"], edm_gammas(len(noise)), noise)
    assert error(end, found["edm/churn/x"]) < ROUNDING


@pytest.fixture(params=["linear", "cosine"])
def table(request, figures) -> tuple[str, Tabulated]:
    steps = len(figures("improved_diffusion")[f"{request.param}/betas"])
    return request.param, Tabulated(table=request.param, steps=steps)


@pytest.mark.costly
@pytest.mark.parametrize("variance", ["FIXED_SMALL", "FIXED_LARGE"])
@pytest.mark.parametrize("name", ["ancestral", "ddim_eta0", "ddim_eta0.5"])
def test_improved_diffusion(model, figures, table, variance: str, name: str) -> None:
    """DDPM's and DDIM's chains equal the authors' on a subset of the 1,000 steps."""
    table, schedule = table
    found = figures("improved_diffusion")
    times = found[f"{table}/{variance}/timesteps"]
    gammas = np.append(schedule.gammas()[np.sort(times)[::-1]], -np.inf)
    large = variance == "FIXED_LARGE"
    samplers = {
        "ancestral": Ancestral(kernel=Choice("kernel", "gaussian", {"variance": "large" if large else "small"})),
        "ddim_eta0": Ddim(),
        "ddim_eta0.5": Ddim(eta=0.5),
    }
    start = found[f"{table}/{variance}/start"] * np.sqrt(1 + np.exp(gammas[0]))
    end = chain(model, samplers[name], start, gammas, found[f"{table}/{variance}/step_noise"])
    assert error(end, found[f"{table}/{variance}/{name}"]) < ROUNDING


def vp_grid(steps: int) -> np.ndarray:
    t = 1 + np.arange(steps) / (steps - 1) * (1e-3 - 1)
    return np.sqrt(np.expm1(0.5 * 19.9 * t**2 + 0.1 * t))


def ve_grid(steps: int) -> np.ndarray:
    return np.sqrt(100**2 * (0.02**2 / 100**2) ** (np.arange(steps) / (steps - 1)))


def iddpm_grid(steps: int) -> np.ndarray:
    """Returns evenly chosen levels between 0.002 and 81 from their own 1,000 noise levels."""
    alpha_bar = np.sin(0.5 * np.pi * np.arange(1001) / 1000 / 1.008) ** 2
    u = np.zeros(1001)
    for j in range(1000, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(alpha_bar[j - 1] / alpha_bar[j], 0.001) - 1)
    u = u[(u >= 0.002) & (u <= 81)]
    return u[np.round((len(u) - 1) / (steps - 1) * np.arange(steps)).astype(int)]


GRIDS = {
    "vp": (vp_grid, "vp_time"),
    "ve": (ve_grid, "variance"),
    "iddpm": (iddpm_grid, "sigma"),
    "edm": (lambda steps: np.exp(edm_gammas(steps)[:-1] / 2), "sigma"),
}


@pytest.mark.costly
@pytest.mark.parametrize(("name", "method"), [("euler", Euler), ("heun", Heun)])
@pytest.mark.parametrize("grid", GRIDS)
def test_ablation_sampler_of_edm(model, figures, grid: str, name: str, method) -> None:
    """All eight combinations of noise levels, time, scaling and method equal EDM's ablation sampler."""
    found, (sigmas, axis) = figures("edm"), GRIDS[grid]
    gammas = np.append(2 * np.log(sigmas(18)), -np.inf)
    end = chain(model, method(axis=axis), np.exp(gammas[0] / 2) * found["latents"], gammas)
    assert error(end, found[f"ablation/{grid}/{name}/x"]) < ROUNDING
