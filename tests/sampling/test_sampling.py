# SPDX-License-Identifier: Apache-2.0
"""Samples: an endless sequence of images, drawn down a grid of gammas by steps of the reverse process."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import NonFiniteError
from vdmkit.networks import AbstractNetwork
from vdmkit.process import UniformInTime
from vdmkit.randomness import fold_purpose
from vdmkit.sampling import AbstractSampler, Ancestral
from vdmkit.sampling.sampler import denoiser_of, draw, no_history
from vdmkit.schedules import FixedLinear


class _Formula(AbstractNetwork):
    """A network that is a function of (z, gamma)."""

    formula: Callable

    def __call__(self, z, gamma, condition, *, key=None):
        return self.formula(z, gamma)[..., None]


@pytest.fixture
def key():
    return jax.random.key(3)


def test_the_grid_goes_from_noise_to_data():
    """A chain would run the wrong way, miss an end of the schedule, or not be uniform in time."""
    np.testing.assert_allclose(UniformInTime()(FixedLinear(gamma_min=-6.0, gamma_max=4.0), 4), [4, 1.5, -1, -3.5, -6])


def test_a_step_draws_from_the_reverse_process(tiny_model, as_float64, key):
    """Sampling would not be ancestral: its step has another mean or spread than q(z_s | z_t, x = x_hat)."""
    with jax.enable_x64(True):
        model = as_float64(tiny_model)
        z = jax.random.normal(key, model.shape, dtype=float)
        g_t, g_s = jnp.asarray(2.0), jnp.asarray(-1.0)
        noise = jax.random.normal(key, z.shape, z.dtype)
        alpha, history = model.path.alpha, no_history(model.shape, jnp.asarray(1))
        y_s, _ = Ancestral().step(denoiser_of(model), z / alpha(g_t), g_t, g_s, history, noise[None])
        z_s = alpha(g_s) * y_s
        # Bayes' rule: precisions add, with x_hat in the place of x and z_t = a z_s + N(0, v), a = alpha_t / alpha_s.
        (alpha_t, var_t), (alpha_s, var_s) = ((jnp.sqrt(jax.nn.sigmoid(-g)), jax.nn.sigmoid(g)) for g in (g_t, g_s))
        x_hat = (z - jnp.sqrt(var_t) * model.denoise(z, g_t, {}).eps_hat) / alpha_t
        a = alpha_t / alpha_s
        v = var_t - a**2 * var_s
        variance = 1 / (1 / var_s + a**2 / v)
        mean = variance * (alpha_s * x_hat / var_s + a * z / v)
        np.testing.assert_allclose(z_s, mean + jnp.sqrt(variance) * noise, rtol=1e-10, atol=1e-12)


@pytest.mark.costly
def test_a_denoiser_that_knows_the_image_draws_it(tiny_model, tiny_images, key):
    """The chain, the last latent's scale or the decoder would not lead back to the data."""
    image = jnp.asarray(tiny_images.pixels[0])
    x = tiny_model.observation.encode(image)

    def eps(z, gamma):
        return (z - jnp.sqrt(jax.nn.sigmoid(-gamma)) * x) / jnp.sqrt(jax.nn.sigmoid(gamma))

    model = eqx.tree_at(lambda m: m.network, tiny_model, _Formula(eps))
    # At gamma_0 = -6 z_0 / alpha_0 lies 0.05 from x, and half way to a level is 0.2: 4 sigma, 64 values, chance 4e-3.
    drawn = draw(model, Ancestral(), UniformInTime()(model.schedule, 3), 4, key=key)
    np.testing.assert_array_equal(drawn, np.broadcast_to(image, drawn.shape))


@pytest.mark.costly
def test_images_are_numbered(tiny_model, key):
    """Asking for more images would change the first ones, or a second batch would repeat the first."""
    grid = UniformInTime()(tiny_model.schedule, 3)
    five = np.asarray(draw(tiny_model, Ancestral(), grid, 5, key=key))
    np.testing.assert_array_equal(draw(tiny_model, Ancestral(), grid, 3, key=key), five[:3])
    np.testing.assert_array_equal(draw(tiny_model, Ancestral(), grid, 3, key=key, first=2), five[2:])
    assert len(np.unique(five, axis=0)) == 5
    assert not np.array_equal(draw(tiny_model, Ancestral(), grid, 5, key=jax.random.key(4)), five)


class _Counted(AbstractSampler):
    """Draws nothing: y_s = gamma_s - 1/2, so that the chain can be followed."""

    noise_draws: int = 0

    def step(self, denoise, y_t, gamma_t, gamma_s, history, noise):
        return y_t * 0 + gamma_s - 0.5, denoise(y_t, gamma_t)


def test_the_chain_ends_at_the_last_gamma(tiny_model, key):
    """A grid value would be left out, the latent not be divided by alpha, or other steps be counted than are made."""
    steps: list[int] = []
    drawn = draw(
        tiny_model, _Counted(), jnp.asarray([5.0, 1.0, 0.0]), 2, key=key, on_step=lambda estimate: steps.append(1)
    )
    assert len(steps) == 2
    # z_0 / alpha_0 = -0.5, next to the second level, -0.4.
    np.testing.assert_array_equal(drawn, np.ones((2, *tiny_model.shape)))


class _Reflected(AbstractSampler):
    """y_s = noise - y_t: two steps of the same noise lead back."""

    noise_draws: int = 1

    def step(self, denoise, y_t, gamma_t, gamma_s, history, noise):
        return noise[0] - y_t, denoise(y_t, gamma_t)


@pytest.mark.costly
@pytest.mark.parametrize("value", [jnp.nan, 1e30])  # whose square overflows
def test_the_images_that_are_not_finite_are_counted(tiny_model, key, value):
    """Not a number would become black, or an image be blamed that is whole."""

    def fail(z, gamma):
        return jnp.where(z[0, 0, 0] > limit, value, z)

    start = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(4, 10))
    first = jax.vmap(lambda k: jax.random.normal(fold_purpose(k, "prior"), tiny_model.shape)[0, 0, 0])(start)
    limit = np.sort(first)[-2] - 1e-3  # two of the six latents are above it
    model = eqx.tree_at(lambda m: m.network, tiny_model, _Formula(fail))
    number = 4 + int(np.argmax(first > limit))
    with pytest.raises(NonFiniteError, match=f"2 of 6 samples are not finite, the first of them number {number}"):
        draw(model, Ancestral(), UniformInTime()(model.schedule, 1), 6, key=key, first=4)


def test_every_step_draws_noise_of_its_own(tiny_model, key):
    """Each step would add the same noise: the samples would not be those of the model."""
    steps = jnp.zeros(3)
    start = draw(tiny_model, _Reflected(), steps[:1], 2, key=key)
    assert not np.array_equal(draw(tiny_model, _Reflected(), steps, 2, key=key), start)
