# SPDX-License-Identifier: Apache-2.0
"""vdmkit's schedules, paths, predictions and weightings against those of other implementations, in float64.

EDM's sigma is s = sigma / alpha = exp(gamma / 2), and its noisy image y = x + s eps. Its networks F see
c_in y, which vdmkit's see too unless a test says so, and c_noise in the place of gamma. flow_matching's time runs from
noise to data.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.denoiser import Edm, Eps
from vdmkit.distribution import Exact, GaussianMixture
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork, NoNetwork
from vdmkit.noise import (
    AbstractPath,
    FixedLinear,
    StraightLine,
    Tabulated,
    VarianceExploding,
    VariancePreserving,
    cosine_betas,
    linear_betas,
    reverse,
)
from vdmkit.objective import AbstractWeighting, EdmWeighting, Simple, eps_error
from vdmkit.observation import GaussianObservation

EXACT = 1e-12  # float64, a few operations


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def model_on(path: AbstractPath, distribution: GaussianMixture) -> DiffusionModel:
    return DiffusionModel(
        FixedLinear(), path, Exact(distribution), NoNetwork(1), GaussianObservation(0), distribution.shape
    )


def error(found, expected) -> float:
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("table", ["linear", "cosine"])
def test_schedules_of_improved_diffusion(figures, table) -> None:
    """Otherwise betas, the SNR that they give, or q(x_s | x_t, x_0) differ at some step."""
    found, schedule = figures("improved_diffusion"), Tabulated(table=table)
    betas = {"linear": linear_betas, "cosine": cosine_betas}[table](1000)
    np.testing.assert_allclose(betas, found[f"{table}/betas"], rtol=1e-10)  # 1 - cos^2 / cos^2 cancels 6 digits
    alpha2 = jax.nn.sigmoid(-jnp.asarray(schedule.gammas()))
    np.testing.assert_allclose(alpha2, found[f"{table}/alphas_cumprod"], rtol=1e-11)  # a thousand factors
    times = jnp.arange(1000) / 999
    np.testing.assert_allclose(jax.vmap(schedule)(times), schedule.gammas(), rtol=EXACT, atol=EXACT)
    gammas, path, zero, one = jnp.asarray(schedule.gammas()), VariancePreserving(), jnp.zeros(()), jnp.ones(())

    def step(gamma_s, gamma_t):
        """Variance, and the mean's coefficients of x and z_t: eps = (z - alpha x) / sigma."""
        of_z, std = reverse(path, gamma_s, gamma_t, one, 1 / path.sigma(gamma_t))
        of_x, _ = reverse(path, gamma_s, gamma_t, zero, -path.alpha(gamma_t) / path.sigma(gamma_t))
        return std**2, of_x, of_z

    variance, of_x, of_z = jax.vmap(step)(gammas[:-1], gammas[1:])
    np.testing.assert_allclose(variance, found[f"{table}/posterior_variance"][1:], rtol=1e-8)  # theirs: 1 - alpha2
    np.testing.assert_allclose(of_x, found[f"{table}/posterior_mean_coef1"][1:], rtol=1e-8)
    np.testing.assert_allclose(of_z, found[f"{table}/posterior_mean_coef2"][1:], rtol=1e-8)


class _Wave(AbstractNetwork):
    """EDM's test function F(x, c) = sin 3x + 0.1 sin c, of what the network is shown, times `scale`, and of c_noise."""

    sign: float
    unscale: bool
    noise: float

    def __call__(self, z, gamma, condition, *, key=None):
        x = z * jnp.sqrt(1 + jnp.exp(gamma)) if self.unscale else z
        return self.sign * (jnp.sin(3 * x) + 0.1 * jnp.sin(self.noise))[..., None]


def _vp_noise(sigma: np.ndarray) -> np.ndarray:
    """999 t, where beta_d = 19.9 and beta_min = 0.1."""
    return 999 * (np.sqrt(0.1**2 + 2 * 19.9 * np.log1p(sigma**2)) - 0.1) / 19.9


def _iddpm_noise(sigma: np.ndarray) -> np.ndarray:
    u = np.zeros(1001)
    alpha_bar = lambda j: np.sin(0.5 * np.pi * j / 1000 / (0.008 + 1)) ** 2  # noqa: E731
    for j in range(1000, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / np.maximum(alpha_bar(j - 1) / alpha_bar(j), 0.001) - 1)
    return 999 - abs(u[None] - sigma[:, None]).argmin(1)


PRECONDITIONINGS = {
    "VPPrecond": (Eps(), 1.0, False, _vp_noise),
    "VEPrecond": (Eps(), -1.0, True, lambda sigma: np.log(sigma / 2)),  # F is -eps, and sees y itself
    "iDDPMPrecond": (Eps(), 1.0, False, _iddpm_noise),
    "EDMPrecond": (Edm(), 1.0, False, lambda sigma: np.log(sigma) / 4),
}


@pytest.mark.parametrize("path", [VarianceExploding(), VariancePreserving()], ids=["ve", "vp"])
@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_preconditionings_of_edm(figures, name: str, path: AbstractPath) -> None:
    """Otherwise a network of EDM's would mean something else, on one path or another."""
    found = figures("edm")
    prediction, sign, unscale, noise = PRECONDITIONINGS[name]
    sigma, y = found[f"precond/{name}/sigma"], jnp.asarray(found["precond/x"])
    for i, (s, c_noise) in enumerate(zip(sigma, noise(sigma), strict=True)):
        network = _Wave(sign, unscale, float(c_noise))
        model = DiffusionModel(FixedLinear(), path, prediction, network, GaussianObservation(0), y.shape[1:])
        gamma = jnp.asarray(2 * np.log(s))
        x_hat = model.denoise(path.alpha(gamma) * y[i], gamma, {}).x_hat
        # EDM's code rounds the input of the network to float32, whatever its own precision; sigma times that is in D
        assert error(x_hat, found[f"precond/{name}/D"][i]) < 1e-5, i


def test_losses_of_edm(figures, mixture) -> None:
    """Otherwise a noise level is drawn from another distribution, or weighs otherwise.

    EDM's losses are of single pixels, w(sigma) (D - y)^2; here they are summed.
    """
    found, data = figures("edm"), figures("mixture")
    model, x, n = model_on(VarianceExploding(), mixture), jnp.asarray(data["x"]), found["loss/noise"]
    u = found["loss/uniform"]
    t = 1 + u * (1e-5 - 1)  # VP's
    sigmas = {
        "VPLoss": np.sqrt(np.expm1(0.5 * 19.9 * t**2 + 0.1 * t)),
        "VELoss": 0.02 * (100 / 0.02) ** u,
        "EDMLoss": np.exp(1.2 * found["loss/normal"] - 1.2),
    }
    weightings = {"VPLoss": Simple(), "VELoss": Simple(), "EDMLoss": EdmWeighting(sd=0.5)}

    def loss(weighting: AbstractWeighting, x, gamma, eps):
        return weighting(gamma, jnp.ones(())) / 2 * eps_error(model, x, gamma, eps, {})

    for name, sigma in sigmas.items():
        gamma = 2 * jnp.log(jnp.asarray(sigma))
        losses = jax.vmap(loss, in_axes=(None, 0, 0, 0))(weightings[name], x, gamma, jnp.asarray(n))
        np.testing.assert_allclose(losses, found[f"loss/{name}"].sum((1, 2, 3)), rtol=1e-7, err_msg=name)


SCHEDULERS = {
    "CondOT": (StraightLine(), lambda t: 2 * jnp.log((1 - t) / t)),
    "Polynomial3": (StraightLine(), lambda t: 2 * jnp.log((1 - t**3) / t**3)),
    "VP": (VariancePreserving(), lambda t: jnp.log(jnp.expm1(0.1 * (1 - t) + 19.9 * (1 - t) ** 2 / 2))),
    "LinearVP": (VariancePreserving(), lambda t: jnp.log((1 - t**2) / t**2)),
    "Cosine": (VariancePreserving(), lambda t: 2 * jnp.log(jnp.tan(jnp.pi / 2 * (1 - t)))),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_paths_of_flow_matching(figures, name: str) -> None:
    """Otherwise alpha, sigma or a derivative differs: each scheduler is a gamma(t) on one of vdmkit's paths."""
    found, (path, gamma) = figures("flow_matching"), SCHEDULERS[name]
    t = jnp.asarray(found["t"][1:-1])  # gamma is infinite at the ends

    def alpha_and_sigma(t):
        return path.alpha(gamma(t)), path.sigma(gamma(t))

    values, slopes = jax.vmap(lambda t: jax.jvp(alpha_and_sigma, (t,), (jnp.ones_like(t),)))(t)
    for value, slope, key in zip(values, slopes, ("alpha_t", "sigma_t"), strict=True):
        np.testing.assert_allclose(value, found[f"{name}/{key}"][1:-1], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(slope, found[f"{name}/d_{key}"][1:-1], rtol=1e-9, atol=1e-12)


def test_velocity_of_flow_matching(figures, mixture) -> None:
    """Otherwise x_hat - eps_hat is not the velocity that their solver follows, from noise to data."""
    found = figures("flow_matching")
    t = jnp.asarray(found["velocity/t"])
    model, gamma = model_on(StraightLine(), mixture), 2 * jnp.log((1 - t) / t)

    @eqx.filter_jit
    def velocity(model, z, gamma):
        estimate = model.denoise(z, gamma, {})
        return estimate.x_hat - estimate.eps_hat

    found_velocity = jax.vmap(lambda z, g: velocity(model, z, g))(jnp.asarray(found["velocity/x"]), gamma)
    assert error(found_velocity, found["velocity/CondOT"]) < 1e-8
