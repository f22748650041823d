# SPDX-License-Identifier: Apache-2.0
"""The schedules, paths, predictions and weightings against those of other implementations, in float64.

EDM's sigma is s = sigma / alpha = exp(gamma / 2), and its noisy image y = x + s eps. Its networks F take c_in y, as
vdmkit's do here unless a test says otherwise, and c_noise in place of gamma. flow_matching's time runs from noise to
data.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.decoders import GaussianObservation
from vdmkit.losses import AbstractWeighting, EdmWeighting, Simple, eps_error
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork, NoNetwork
from vdmkit.predictions import Edm, Eps
from vdmkit.process import AbstractPath, StraightLine, VarianceExploding, VariancePreserving, diffuse, reverse
from vdmkit.schedules import FixedLinear, Tabulated, cosine_betas, linear_betas
from vdmkit.toy_data import Exact, GaussianMixture

EXACT = 1e-12  # float64, a few operations


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def model_on(path: AbstractPath, distribution: GaussianMixture) -> DiffusionModel:
    return DiffusionModel(
        schedule=FixedLinear(),
        path=path,
        prediction=Exact(distribution),
        network=NoNetwork(1),
        observation=GaussianObservation(0),
        shape=distribution.shape,
    )


def error(found, expected) -> float:
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("table", ["linear", "cosine"])
def test_schedules_of_improved_diffusion(figures, table) -> None:
    """The betas, the SNR and q(x_s | x_t, x_0) equal the authors' at every step."""
    found = figures("improved_diffusion")
    steps = len(found[f"{table}/betas"])
    schedule, betas = (
        Tabulated(table=table, steps=steps),
        {"linear": linear_betas, "cosine": cosine_betas}[table](steps),
    )
    np.testing.assert_allclose(betas, found[f"{table}/betas"], rtol=1e-10)  # 1 - cos^2 / cos^2 cancels 6 digits
    alpha2 = jax.nn.sigmoid(-jnp.asarray(schedule.gammas()))
    np.testing.assert_allclose(alpha2, found[f"{table}/alphas_cumprod"], rtol=1e-11)  # a thousand factors
    times = jnp.arange(steps) / (steps - 1)
    np.testing.assert_allclose(jax.vmap(schedule)(times), schedule.gammas(), rtol=EXACT, atol=EXACT)
    # The first step leads to the image itself, where gamma is -inf.
    gammas, path, zero, one = np.append(-np.inf, schedule.gammas()), VariancePreserving(), jnp.zeros(()), jnp.ones(())

    def step(gamma_s, gamma_t):
        """Returns the variance, and the coefficients of x and z_t in the mean, where eps = (z - alpha x) / sigma."""
        of_z, std = reverse(path, gamma_s, gamma_t, one, 1 / path.sigma(gamma_t))
        of_x, _ = reverse(path, gamma_s, gamma_t, zero, -path.alpha(gamma_t) / path.sigma(gamma_t))
        return std**2, of_x, of_z

    coefficients = jax.vmap(step)(jnp.asarray(gammas[:-1]), jnp.asarray(gammas[1:]))
    names = ("posterior_variance", "posterior_mean_coef1", "posterior_mean_coef2")
    for name, found_here in zip(names, coefficients, strict=True):
        # theirs has 1 - alpha2; the first coefficient of z_t is 0, a difference of terms of 1
        np.testing.assert_allclose(found_here, found[f"{table}/{name}"], rtol=1e-8, atol=1e-15, err_msg=name)


class _Wave(AbstractNetwork):
    """EDM's test function F(x, c) = sin 3x + 0.1 sin c of the network's input, times `scale`, and of c_noise."""

    sign: float
    unscale: bool
    noise: float

    def __call__(self, z, gamma, condition, *, key=None):
        x = z * jnp.sqrt(1 + jnp.exp(gamma)) if self.unscale else z
        return self.sign * (jnp.sin(3 * x) + 0.1 * jnp.sin(self.noise))[..., None]


def _vp_noise(sigma: np.ndarray) -> np.ndarray:
    """Returns 999 t, for beta_d = 19.9 and beta_min = 0.1."""
    return 999 * (np.sqrt(0.1**2 + 2 * 19.9 * np.log1p(sigma**2)) - 0.1) / 19.9


def _iddpm_index(sigma: np.ndarray) -> np.ndarray:
    """Returns the index, from 0, of the nearest noise level of iDDPM's betas, which the network is conditioned on."""
    return abs(_iddpm_levels()[None] - sigma[:, None]).argmin(1)


def _iddpm_levels() -> np.ndarray:
    return np.exp(Tabulated(table="cosine").gammas() / 2)


def _as_given(sigma: np.ndarray) -> np.ndarray:
    return sigma


PRECONDITIONINGS = {
    "VPPrecond": (Eps(), 1.0, False, _vp_noise),
    "VEPrecond": (Eps(), -1.0, True, lambda sigma: np.log(sigma / 2)),  # F is -eps, and sees y itself
    "iDDPMPrecond": (Eps(), 1.0, False, _iddpm_index),
    "EDMPrecond": (Edm(), 1.0, False, lambda sigma: np.log(sigma) / 4),
}


@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_noise_levels_of_edms_preconditionings(figures, name: str) -> None:
    """The reference uses the requested noise levels, for iDDPM rounded to the levels of its betas."""
    found = figures("edm")
    levels = {"iDDPMPrecond": lambda sigma: _iddpm_levels()[_iddpm_index(sigma)]}.get(name, _as_given)
    # EDM sums iDDPM's levels one by one in float32, a thousand roundings of 6e-8; 4e-6 was measured
    rtol = 6e-5 if name == "iDDPMPrecond" else 0
    np.testing.assert_allclose(levels(found["precond/sigma"]), found[f"precond/{name}/sigma"], rtol=rtol)


@pytest.mark.parametrize("path", [VarianceExploding(), VariancePreserving()], ids=["ve", "vp"])
@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_preconditionings_of_edm(figures, name: str, path: AbstractPath) -> None:
    """EDM's preconditionings give the denoiser of the reference on every path."""
    found = figures("edm")
    prediction, sign, unscale, noise = PRECONDITIONINGS[name]
    sigma, y = found[f"precond/{name}/sigma"], jnp.asarray(found["precond/x"])
    for i, (s, c_noise) in enumerate(zip(sigma, noise(sigma), strict=True)):
        network = _Wave(sign, unscale, float(c_noise))
        model = DiffusionModel(
            schedule=FixedLinear(),
            path=path,
            prediction=prediction,
            network=network,
            observation=GaussianObservation(0),
            shape=y.shape[1:],
        )
        gamma = jnp.asarray(2 * np.log(s))
        x_hat = model.denoise(path.alpha(gamma) * y[i], gamma, {}).x_hat
        # EDM's code rounds the input of the network to float32, whatever its own precision; sigma times that is in D
        assert error(x_hat, found[f"precond/{name}/D"][i]) < 1e-5, i


def test_losses_of_edm(figures, mixture) -> None:
    """EDM's losses equal the reference: both the distribution of noise levels and their weights.

    EDM's losses are per pixel, w(sigma) (D - y)^2, and vdmkit's per image.
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

    def losses(weighting: AbstractWeighting, x, gamma, eps):
        """Returns the loss of each pixel, and of each image as vdmkit sums them."""
        half = weighting(gamma, jnp.ones(())) / 2
        eps_hat = model.denoise(diffuse(model.path, gamma, x, eps), gamma, {}).eps_hat
        return half * (eps - eps_hat) ** 2, half * eps_error(model, x, gamma, eps, {})

    for name, sigma in sigmas.items():
        gamma = 2 * jnp.log(jnp.asarray(sigma))
        pixels, sums = jax.vmap(losses, in_axes=(None, 0, 0, 0))(weightings[name], x, gamma, jnp.asarray(n))
        # D - y cancels digits where the error is small
        size = found[f"loss/{name}"].max()
        np.testing.assert_allclose(pixels, found[f"loss/{name}"], rtol=1e-7, atol=1e-12 * size, err_msg=name)
        np.testing.assert_allclose(sums, found[f"loss/{name}"].sum((1, 2, 3)), rtol=1e-7, err_msg=name)


SCHEDULERS = {
    "CondOT": (StraightLine(), lambda t: 2 * jnp.log((1 - t) / t)),
    "Polynomial3": (StraightLine(), lambda t: 2 * jnp.log((1 - t**3) / t**3)),
    "VP": (VariancePreserving(), lambda t: jnp.log(jnp.expm1(0.1 * (1 - t) + 19.9 * (1 - t) ** 2 / 2))),
    "LinearVP": (VariancePreserving(), lambda t: jnp.log((1 - t**2) / t**2)),
    "Cosine": (VariancePreserving(), lambda t: 2 * jnp.log(jnp.tan(jnp.pi / 2 * (1 - t)))),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_paths_of_flow_matching(figures, name: str) -> None:
    """Every scheduler is a gamma(t) on one of vdmkit's paths, with the same alpha, sigma and derivatives."""
    found, (path, gamma) = figures("flow_matching"), SCHEDULERS[name]
    t = jnp.asarray(found["t"])

    def alpha_and_sigma(t):
        at = jnp.clip(gamma(t), -700, 700)  # at an end with infinite gamma, alpha and sigma become 1 or 1e-152
        return path.alpha(at), path.sigma(at)

    values, slopes = jax.vmap(lambda t: jax.jvp(alpha_and_sigma, (t,), (jnp.ones_like(t),)))(t)
    inside = jnp.isfinite(gamma(t))  # gamma' is infinite where gamma is
    for value, slope, key in zip(values, slopes, ("alpha_t", "sigma_t"), strict=True):
        np.testing.assert_allclose(value, found[f"{name}/{key}"], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(slope[inside], found[f"{name}/d_{key}"][inside], rtol=1e-9, atol=1e-12)


def test_velocity_of_flow_matching(figures, mixture) -> None:
    """x_hat - eps_hat is the velocity that their solver follows, from noise to data."""
    found = figures("flow_matching")
    t = jnp.asarray(found["velocity/t"])
    model, gamma = model_on(StraightLine(), mixture), 2 * jnp.log((1 - t) / t)

    @eqx.filter_jit
    def velocity(model, z, gamma):
        estimate = model.denoise(z, gamma, {})
        return estimate.x_hat - estimate.eps_hat

    found_velocity = jax.vmap(lambda z, g: velocity(model, z, g))(jnp.asarray(found["velocity/x"]), gamma)
    assert error(found_velocity, found["velocity/CondOT"]) < 1e-8
