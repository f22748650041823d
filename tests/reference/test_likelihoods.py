# SPDX-License-Identifier: Apache-2.0
"""The bound and probability-flow likelihood against improved-diffusion's and k-diffusion's, in float64.

improved-diffusion's bound of T latents has T - 1 steps and, from the first latent to the data, a discretised Gaussian
around x_hat. Its rows go from the largest time down.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.decoders import DiscretisedGaussian, GaussianObservation
from vdmkit.integrator import Integrator
from vdmkit.likelihood.ode import transport
from vdmkit.losses import bits_per_dim, eps_error, prior_loss
from vdmkit.losses.discrete_time import step_loss
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.process import VarianceExploding, VariancePreserving
from vdmkit.reverse import GaussianKernel, part_of_noise
from vdmkit.schedules import FixedLinear, Tabulated
from vdmkit.toy_data import Exact, GaussianMixture


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.costly
@pytest.mark.parametrize("variance", ["FIXED_SMALL", "FIXED_LARGE"])
@pytest.mark.parametrize("table", ["linear", "cosine"])
def test_bound_of_improved_diffusion(figures, mixture: GaussianMixture, table: str, variance: str) -> None:
    """The prior, the divergence of each step, the decoder and their sum equal the authors'."""
    found, data = figures("improved_diffusion"), figures("mixture")
    rows = {key.removeprefix(f"{table}/{variance}/"): value for key, value in found.items()}
    times = np.sort(rows["timesteps"])[::-1]
    gammas = jnp.asarray(Tabulated(table=table).gammas()[times])
    kernel, key = GaussianKernel(variance="large" if variance == "FIXED_LARGE" else "small"), jax.random.key(0)
    # variance of z at the second step, where alpha_s^2 = 1 / (1 + e^gamma_s)
    first = float(part_of_noise(gammas[-2], gammas[-1]) / (1 + jnp.exp(-gammas[-1])))
    schedule = FixedLinear(gamma_min=float(gammas[-1]), gamma_max=float(gammas[0]))
    observation = DiscretisedGaussian(256, sd=float(np.sqrt(first)))
    model = DiffusionModel(
        schedule=schedule,
        path=VariancePreserving(),
        prediction=Exact(mixture),
        network=NoNetwork(1),
        observation=observation,
        shape=mixture.shape,
    )
    images, noise = jnp.asarray(data["x_uint8"]), jnp.asarray(rows["noise"])
    np.testing.assert_allclose(jax.vmap(observation.encode)(images), data["x"], atol=1e-15)

    @jax.jit
    def bound(image, eps):
        x = observation.encode(image)
        errors = jax.vmap(lambda gamma, eps: eps_error(model, x, gamma, eps, {}))(gammas, eps)
        of_step = lambda eps, t, s: step_loss(model, kernel, x, eps, t, s, {}, key=key)  # noqa: E731
        steps = jax.vmap(of_step)(eps[:-1], gammas[:-1], gammas[1:])
        z_0 = x + jnp.exp(gammas[-1] / 2) * eps[-1]
        decoder = -observation.log_prob(image, z_0, gammas[-1], lambda: model.estimate(z_0, gammas[-1]))
        return prior_loss(model, x), jnp.append(steps, decoder), errors / model.dimensions

    prior, steps, errors = jax.vmap(bound, in_axes=(0, 1))(images, noise)
    prior, steps = (bits_per_dim(np.asarray(nats), model.dimensions) for nats in (prior, steps))
    np.testing.assert_allclose(errors, rows["mse"], rtol=1e-6)
    np.testing.assert_allclose(prior, rows["prior_bpd"], rtol=1e-5)
    np.testing.assert_allclose(steps, rows["vb"], rtol=1e-5)
    np.testing.assert_allclose(prior + steps.sum(1), rows["total_bpd"], rtol=1e-5)


def test_log_likelihood_of_k_diffusion(figures, mixture: GaussianMixture) -> None:
    """The ODE, its divergence and the density N(0, sigma_max^2) at its end equal k-diffusion's."""
    found, data = figures("k_diffusion"), figures("mixture")
    low, high = found["log_likelihood/sigma"].tolist()
    schedule = FixedLinear(gamma_min=2 * float(np.log(low)), gamma_max=2 * float(np.log(high)))
    model = DiffusionModel(
        schedule=schedule,
        path=VarianceExploding(),
        prediction=Exact(mixture),
        network=NoNetwork(1),
        observation=GaussianObservation(0),
        shape=mixture.shape,
    )
    integrator = Integrator("Dopri8", jnp.asarray(1e-11), jnp.asarray(1e-11), 0, 4096)
    end = jax.jit(jax.vmap(lambda x, v: transport(model, x, v[None], integrator)))(
        jnp.asarray(data["x"]), jnp.asarray(found["log_likelihood/probe"])
    )
    assert not end.failed.any()
    z = np.asarray(end.z_1)
    log_p_1 = -((z / high) ** 2 / 2 + np.log(high) + np.log(2 * np.pi) / 2).sum((1, 2, 3))
    # their solver has a tolerance of 1e-8 over some hundred steps
    np.testing.assert_allclose(log_p_1 + end.volume, found["log_likelihood"], rtol=1e-5)
