# SPDX-License-Identifier: Apache-2.0
"""The ancestral sampler on Gaussian data, whose variance is known, and on a known image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.decoders import CategoricalObservation
from vdmkit.process import UniformInTime, VariancePreserving, reverse
from vdmkit.sampling import Ancestral
from vdmkit.sampling.sampler import denoiser_of, draw, no_history
from vdmkit.schedules import FixedLinear


def _last_variance(variance: float, steps: int) -> float:
    """Returns V_0 of z_0 with the exact denoiser of N(0, variance) on the default schedule (PAPER 19.3)."""
    gamma = np.linspace(5.0, -13.3, steps + 1)
    alpha2, sigma2 = 1 / (1 + np.exp(gamma)), 1 / (1 + np.exp(-gamma))
    last = 1.0
    for t in range(steps):
        s = t + 1
        c = -np.expm1(gamma[s] - gamma[t])
        shrink = 1 - c * sigma2[t] / (alpha2[t] * variance + sigma2[t])
        last = alpha2[s] / alpha2[t] * shrink**2 * last + sigma2[s] * c
    return last


@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_a_chain_of_steps_has_the_variance_of_the_recursion(gaussian, quick_key, variance: float) -> None:
    """With the exact denoiser, V_0 after T steps follows the recursion of PAPER 19.3."""
    model = gaussian(variance)
    zeros, ones = jnp.zeros(model.shape), jnp.ones(model.shape)

    @jax.jit
    @jax.vmap
    def one_step(gamma_t, gamma_s):
        """z_s = a z_t + std n; a is measured from the sampler itself."""
        history, alpha = no_history(model.shape, jnp.asarray(1)), model.path.alpha

        def step(z):
            y, _ = Ancestral().step(denoiser_of(model), z / alpha(gamma_t), gamma_t, gamma_s, history, zeros[None])
            return alpha(gamma_s) * y

        return (step(ones) - step(zeros))[0, 0, 0], reverse(model.path, gamma_s, gamma_t, zeros, zeros)[1]

    grids = [UniformInTime()(model.schedule, steps) for steps in (10, 100, 1000)]
    pairs = jnp.concatenate([jnp.stack([grid[:-1], grid[1:]], -1) for grid in grids])
    steps = np.split(np.stack(one_step(*pairs.T), -1), [10, 110])
    published = {1.0: [0.458778, 0.913838, 0.990906], 0.25: [0.114599, 0.228462, 0.247730]}[variance]
    for chain, value in zip(steps, published, strict=True):
        last = 1.0
        for a, std in chain:
            last = a**2 * last + std**2
        np.testing.assert_allclose(last, _last_variance(variance, len(chain)), rtol=1e-12)  # 1e-16 a step, 10 roundings
        np.testing.assert_allclose(last, value, rtol=0, atol=1.5e-6)  # six decimals; 0.913838 is printed for 0.9138394


@pytest.mark.costly
def test_samples_have_the_variance_of_the_recursion(gaussian, quick_key) -> None:
    """The variance of `sample`'s images is that of its steps: T = 10 keeps 46% of the variance 0.04."""
    model = gaussian(0.04, observation=CategoricalObservation(256), shape=(64, 64, 1))
    images = draw(model, Ancestral(), UniformInTime()(model.schedule, 10), 8, key=quick_key)
    x = np.asarray(jax.vmap(model.observation.encode)(images))
    expected = _last_variance(0.04, 10) + (2 / 256) ** 2 / 12  # plus rounding to levels; the ends are 7 sd away
    n = x.size
    # standard error of a Gaussian's variance: sqrt(2 / n) of it. 4 of them each, false alarm 1.3e-4
    np.testing.assert_allclose((x**2).mean(), expected, rtol=4 * np.sqrt(2 / n))
    np.testing.assert_allclose(x.mean(), 0, atol=4 * np.sqrt(expected / n))


def test_a_denoiser_that_knows_the_image_draws_it(model_of, quick_key) -> None:
    """A denoiser with access to the image draws exactly this image; the last noise, sigma_0, is 1/45 of half a bin."""
    image = jnp.asarray(np.random.default_rng(0).integers(0, 17, (4, 4, 3)).astype(np.uint8))
    path, observation = VariancePreserving(), CategoricalObservation(17)
    x = observation.encode(image)

    def eps_hat(z, gamma):
        return (z - path.alpha(gamma) * x) / path.sigma(gamma)

    model = model_of(eps_hat, observation=observation, shape=image.shape)
    for steps in (1, 20):
        images = draw(model, Ancestral(), UniformInTime()(model.schedule, steps), 3, key=quick_key)
        np.testing.assert_array_equal(images, np.broadcast_to(image, (3, *image.shape)))


def test_grid_runs_from_noise_to_data_in_even_steps_of_time() -> None:
    """The grid runs from noise to data in even steps of t, both ends included."""
    grid = UniformInTime()(FixedLinear(gamma_min=-6.0, gamma_max=4.0), 5)
    np.testing.assert_allclose(grid, [4, 2, 0, -2, -4, -6], rtol=0, atol=1e-14)
