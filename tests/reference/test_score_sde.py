# SPDX-License-Identifier: Apache-2.0
r"""The path, score and probability-flow likelihood against score_sde's, on an exact denoiser, in float64.

score_sde (github.com/yang-song/score_sde_pytorch, the code of Song et al. 2021, arXiv 2011.13456) and vdmkit use the
same data, a Gaussian mixture, whose posterior mean has a closed form. score_sde's conventions:

    time          s from 0 (data) to 1. The ODE starts at s = 1e-3 and ends at 1; vdmkit's t = 0 and 1 are these two.
    start         The image itself is the latent at s = 1e-3, with pixels x = level / 127.5 - 1, unlike vdmkit's, and no
                  dequantisation, alpha or noise. vdmkit's flow is therefore started there directly.
    end           p_1 is N(0, I) for vp and subvp, and N(0, sigma_max^2 I) for ve. vdmkit's N(0, (alpha_1^2 +
                  sigma_1^2) I) is the same for vp only, so the other two are compared with score_sde's p_1.
    divergence    Hutchinson's, with one Rademacher vector per image along the whole trajectory.
    bits          -log2 p(x) / d + 7 for all SDEs: the 256 levels fill [-1, 1], so each is 2^-7 wide.
    latent        z is the end of the ODE, at s = 1.

subvp has sigma = 1 - alpha^2 with vp's alpha, and ve has alpha = 1 with log sigma linear in s, from 0.01 to 50.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from vdmkit.decoders import GaussianObservation
from vdmkit.integrator import Integrator
from vdmkit.likelihood.ode import Transport, log_prior, transport
from vdmkit.losses import bits_per_dim
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.process import SubVariancePreserving, VarianceExploding, VariancePreserving
from vdmkit.schedules import LinearBeta, LogLinear, SubVpLinearBeta, check_increasing, gamma_and_derivative
from vdmkit.toy_data import Exact, GaussianMixture

START = 1e-3
TIGHT = 1e-11  # vdmkit's solver
ROUNDING = 1e-13  # hundreds of float64 roundings: at low noise the score's logits are near 1000; 3e-14 was measured

# score_sde's solver (scipy's RK45) makes 35 steps for vp and 64 for ve, each within 1e-8 (1 + |value|) in the root mean
# square over all images. If all errors add up, that is 7e-7 of z, whose values have the size of p_1's standard
# deviation, and of the code length of 6 to 7 bits. 2e-8 was measured. Outside of these tests, RK45 with the same
# tolerances gave score_sde's values for vp and ve to 1e-14, so the difference is the error of that solver.
SOLVER = 1e-6


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@dataclass(frozen=True)
class Sde:
    """One of score_sde's SDEs as a model of vdmkit, and score_sde's outputs for it."""

    name: str
    figures: dict[str, np.ndarray]  # of score_sde.npz
    data: dict[str, np.ndarray]  # mixture.npz
    mixture: GaussianMixture

    def __getitem__(self, name: str) -> np.ndarray:
        return self.figures[f"{self.name}/{name}"]

    @property
    def model(self) -> DiffusionModel:
        sigma_start = 0.01 * (50 / 0.01) ** START
        schedule, path = {
            "vp": (LinearBeta(epsilon=START), VariancePreserving()),
            "subvp": (SubVpLinearBeta(epsilon=START), SubVariancePreserving()),
            "ve": (LogLinear(sigma_min=sigma_start, sigma_max=50.0), VarianceExploding()),
        }[self.name]
        exact, observation = Exact(self.mixture), GaussianObservation(0)
        return DiffusionModel(
            schedule=schedule,
            path=path,
            prediction=exact,
            network=NoNetwork(1),
            observation=observation,
            shape=self.mixture.shape,
        )

    @property
    def gamma(self) -> tuple[Array, Array]:
        """gamma and dgamma/ds at the times `t`, which are score_sde's s."""
        t = jnp.asarray((self.figures["t"] - START) / (1 - START))
        gamma, derivative = jax.vmap(lambda t: gamma_and_derivative(self.model.schedule, t))(t)
        return gamma, derivative / (1 - START)

    def log_p_1(self, z: Array) -> Array:
        if self.name == "vp":
            return jax.vmap(lambda z: log_prior(self.model, z))(z)
        return stats.norm.logpdf(z, scale=50 if self.name == "ve" else 1).sum((1, 2, 3))


@pytest.fixture(scope="module", params=["vp", "subvp", "ve"])
def sde(request, figures, mixture) -> Sde:
    return Sde(request.param, figures("score_sde"), figures("mixture"), mixture)


@pytest.fixture(scope="module")
def flow(sde) -> Transport:
    """Solves the ODE from each image at s = 1e-3 to s = 1."""

    @eqx.filter_jit
    def solve(model: DiffusionModel, x: Array, probes: Array) -> Transport:
        integrator = Integrator("Dopri8", jnp.array(TIGHT), jnp.array(TIGHT), 0, 4096)
        return jax.vmap(lambda x, v: transport(model, x, v[None], integrator))(x, probes)

    return solve(sde.model, jnp.asarray(sde.data["x"]), jnp.asarray(sde.figures["probe"]))


def image_errors(found, expected) -> np.ndarray:
    """Returns |found - expected| / |expected| for each image."""
    found, expected = (np.asarray(a).reshape(len(expected), -1) for a in (found, expected))
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


def times_images(scalars: Array, images) -> Array:
    return scalars[:, None, None, None] * images


def test_schedules_are_sound(sde) -> None:
    """The schedule of each SDE is strictly increasing."""
    check_increasing(sde.model.schedule)


def test_mean_and_standard_deviation_of_the_latent(sde) -> None:
    """score_sde's mean is alpha x and its std is sigma, at all times."""
    gamma, path = sde.gamma[0], sde.model.path
    assert image_errors(times_images(jax.vmap(path.alpha)(gamma), sde.data["x"]), sde["mean"]).max() < ROUNDING
    assert image_errors(jax.vmap(path.sigma)(gamma), sde["std"]).max() < ROUNDING


def test_drift_and_diffusion(sde) -> None:
    """On any path, drift = z dlog alpha/ds and diffusion^2 = sigma^2 dgamma/ds.

    The drift of ve is exactly zero.
    """
    (gamma, derivative), path = sde.gamma, sde.model.path
    rate = jax.vmap(jax.grad(path.log_alpha))(gamma) * derivative
    size = np.linalg.norm(sde["drift"])
    assert np.linalg.norm(times_images(rate, sde.figures["x_t"]) - sde["drift"]) <= ROUNDING * size
    diffusion = jax.vmap(path.sigma)(gamma) * jnp.sqrt(derivative)
    assert image_errors(diffusion, sde["diffusion"]).max() < ROUNDING


def test_score(sde) -> None:
    """The score is -eps_hat / sigma, so both sides use the same denoiser."""
    gamma, model = sde.gamma[0], sde.model
    eps_hat = jax.vmap(lambda z, gamma: model.denoise(z, gamma, {}).eps_hat)(jnp.asarray(sde.figures["x_t"]), gamma)
    assert image_errors(times_images(-1 / jax.vmap(model.path.sigma)(gamma), eps_hat), sde["score"]).max() < ROUNDING


def test_density_of_the_end(sde) -> None:
    """p_1 equals score_sde's prior log density, which does not depend on t."""
    assert image_errors(sde.log_p_1(jnp.asarray(sde.figures["x_t"])), sde["prior_logp"]).max() < ROUNDING


@pytest.mark.costly
def test_latent_of_the_flow(sde, flow) -> None:
    """The probability-flow ODE ends at score_sde's latent."""
    assert not flow.failed.any()
    assert image_errors(flow.z_1, sde["z"]).max() < SOLVER


@pytest.mark.costly
def test_bits_per_dimension_of_the_flow(sde, flow) -> None:
    """The bits/dim of the probability-flow ODE equal score_sde's."""
    nats = -(sde.log_p_1(flow.z_1) + flow.volume)
    assert image_errors(bits_per_dim(nats, sde.model.dimensions) + 7, sde["bpd"]).max() < SOLVER
