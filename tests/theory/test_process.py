# SPDX-License-Identifier: Apache-2.0
"""The Gaussians of the forward process and of its reversal, on all registered paths."""

import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.process import VariancePreserving, diffuse, reverse
from vdmkit.schedules import FixedLinear

GAMMAS = [(-13.3, -12.0), (-4.0, -1.0), (-1.0, 0.5), (2.0, 5.0)]


def test_snr_is_exp_of_minus_gamma(path) -> None:
    """gamma = -log SNR on every path."""
    for gamma in jnp.linspace(-13.3, 5, 7):
        log_snr = 2 * jnp.log(path.alpha(gamma) / path.sigma(gamma))
        np.testing.assert_allclose(log_snr, -gamma, rtol=0, atol=1e-14)


def test_variance_preserving_path_is_the_papers() -> None:
    """On the variance-preserving path alpha^2 + sigma^2 = 1, and sigma is accurate in float32 at low noise."""
    path = VariancePreserving()
    for gamma in jnp.linspace(-13.3, 5, 7):
        np.testing.assert_allclose(path.alpha(gamma) ** 2 + path.sigma(gamma) ** 2, 1, rtol=1e-15)
    sigma2 = path.sigma(jnp.float32(-13.3)) ** 2
    np.testing.assert_allclose(sigma2, 1.67449e-6, rtol=5e-6)  # float32; 1 - alpha^2 gives 1.66893e-6 (PAPER section 2)


def test_reverse_step_has_the_papers_values() -> None:
    """The reverse step equals that of the authors' code."""
    zeros, ones = jnp.zeros(1), jnp.ones(1)
    step = (VariancePreserving(), jnp.array(-1.0), jnp.array(0.5))
    of_z, std = reverse(*step, ones, zeros)
    of_eps, _ = reverse(*step, zeros, ones)
    # PAPER 19.13, computed in float32: an ulp at 1
    np.testing.assert_allclose([of_z[0], of_eps[0], std], [1.3915353, -0.8528998, 0.4570913], rtol=0, atol=1.2e-7)


@pytest.mark.parametrize(("gamma_s", "gamma_t"), GAMMAS)
def test_reverse_is_bayes_rule(path, gamma_s: float, gamma_t: float) -> None:
    """q(z_s | z_t, x) is the posterior of q(z_s | x) q(z_t | z_s)."""
    x, eps = 0.3, -1.7
    s, t = jnp.array(gamma_s), jnp.array(gamma_t)
    z_t = diffuse(path, t, jnp.array([x]), jnp.array([eps]))
    mean, std = reverse(path, s, t, z_t, jnp.array([eps]))
    alpha_s, sigma_s, alpha_t, sigma_t = map(float, (path.alpha(s), path.sigma(s), path.alpha(t), path.sigma(t)))
    alpha_ts = alpha_t / alpha_s
    variance_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    precision = 1 / sigma_s**2 + alpha_ts**2 / variance_ts
    expected = (alpha_s * x / sigma_s**2 + alpha_ts * float(z_t[0]) / variance_ts) / precision
    # the reference cancels in variance_ts: rounding times sigma_t^2 / variance_ts < 2, and z_t - alpha x costs
    # 1 / sigma_s = 800 roundings more
    np.testing.assert_allclose([mean[0], std], [expected, precision**-0.5], rtol=1e-12)


@pytest.mark.costly
@pytest.mark.parametrize(("gamma_s", "gamma_t"), GAMMAS)
def test_step_kl_is_the_loss_of_the_step(path, model_of, losses, gamma_s: float, gamma_t: float) -> None:
    """The loss of a step is KL(q(z_s | z_t, x) || p(z_s | z_t)) (PAPER 19.11)."""
    schedule = FixedLinear(gamma_min=gamma_s, gamma_max=gamma_t)
    model = model_of(lambda z, gamma: jnp.tanh(z), path=path, schedule=schedule)
    x, eps = jnp.array([[0.5, -0.5, 0.5, 0.5], [1.0, 0.2, -2.0, 0.3]])[..., None, None]
    s, t = jnp.array(gamma_s), jnp.array(gamma_t)
    z_t = diffuse(path, t, x, eps)
    posterior, std = reverse(path, s, t, z_t, eps)
    modelled, same_std = reverse(path, s, t, z_t, jnp.tanh(z_t))
    assert std == same_std
    kl = ((posterior - modelled) ** 2).sum() / (2 * std**2)
    expected = 0.5 * jnp.expm1(t - s) * ((eps - jnp.tanh(z_t)) ** 2).sum()
    # means of size 1 are subtracted and divided by std > 1e-3, twice
    np.testing.assert_allclose(kl, expected, rtol=1e-11)
    np.testing.assert_allclose(losses(model, x, eps, jnp.ones(1), steps=1)[0], expected, rtol=1e-13)
