# SPDX-License-Identifier: Apache-2.0
"""Networks' outputs as x_hat, eps_hat and distributions over levels, on every path."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from vdmkit.data import GaussianData
from vdmkit.decoders import CategoricalObservation
from vdmkit.losses import prior_loss, reconstruction_loss
from vdmkit.predictions import Categorical, Lattice, level_values, solve_direction
from vdmkit.process import VariancePreserving
from vdmkit.registry import registry
from vdmkit.schedules import FixedLinear

SHAPE, LEVELS = (3, 2, 1), 5
GAMMAS = [-13.3, -2.0, 5.0]
COUNTS = np.random.default_rng(0).integers(0, 20, (*SHAPE, LEVELS)).astype(np.int32)


def _normal(seed: int, *shape: int) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.costly
@pytest.mark.parametrize("name", sorted(registry("prediction").components))
@pytest.mark.parametrize("gamma", GAMMAS)
def test_estimates_of_data_and_noise_agree(path, name: str, gamma: float) -> None:
    """z = alpha x_hat + sigma eps_hat, and x_hat is the mean of a distribution that sums to one."""
    known = GaussianData(shape=SHAPE, levels=LEVELS).distribution
    context = {"shape": SHAPE, "levels": LEVELS, "level_counts": jnp.asarray(COUNTS), "distribution": known}
    prediction = registry("prediction").get(name).build(context)
    g, z = jnp.array(gamma), _normal(1, *SHAPE)
    estimate = eqx.filter_jit(prediction)(_normal(2, *SHAPE, prediction.outputs), z, g, path)
    again = path.alpha(g) * estimate.x_hat + path.sigma(g) * estimate.eps_hat
    np.testing.assert_allclose(again, z, rtol=0, atol=1e-13)  # terms of size 1 to 10
    if estimate.log_probs is not None:
        probs = np.exp(estimate.log_probs)
        np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-9)  # logits reach 1e6 at -13.3
        np.testing.assert_allclose(probs @ level_values(LEVELS), estimate.x_hat, rtol=0, atol=1e-9)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_any_direction_is_solved_for_data_and_noise(path, gamma: float) -> None:
    """From an exact a x + b eps the solve recovers x and eps, for any (a, b) not parallel to (alpha, sigma)."""
    g, x, eps = jnp.array(gamma), _normal(1, *SHAPE), _normal(2, *SHAPE)
    alpha, sigma = path.alpha(g), path.sigma(g)
    z = alpha * x + sigma * eps
    for a, b in np.random.default_rng(3).normal(size=(8, 2)):
        estimate = solve_direction(a * x + b * eps, z, (jnp.asarray(a), jnp.asarray(b)), g, path)
        size = (abs(a) + abs(b)) * (alpha + sigma) / abs(a * sigma - b * alpha)  # roundings of output and z, solved
        np.testing.assert_allclose(estimate.x_hat, x, rtol=0, atol=1e-15 * size * 10)
        np.testing.assert_allclose(estimate.eps_hat, eps, rtol=0, atol=1e-15 * size * 10)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_silent_categorical_network_is_bayes_rule_for_independent_pixels(path, gamma: float) -> None:
    """With zero logits the posterior is Bayes' rule for the histogram with 1/2 added to each count."""
    g, x = jnp.array(gamma), np.asarray(level_values(LEVELS))
    alpha, sigma = float(path.alpha(g)), float(path.sigma(g))
    z = alpha * _normal(1, *SHAPE) / 2 + sigma * _normal(2, *SHAPE)
    estimate = eqx.filter_jit(Categorical(jnp.asarray(COUNTS)))(jnp.zeros((*SHAPE, LEVELS)), z, g, path)
    log_joint = np.log((COUNTS + 0.5) / (COUNTS.sum(-1, keepdims=True) + 0.5 * LEVELS))
    log_joint = log_joint - (np.asarray(z)[..., None] - alpha * x) ** 2 / (2 * sigma**2)
    log_posterior = log_joint - np.logaddexp.reduce(log_joint, -1, keepdims=True)
    mean = np.exp(log_posterior) @ x
    np.testing.assert_allclose(estimate.log_probs, log_posterior, rtol=1e-12, atol=1e-9)  # logits reach 1e6
    np.testing.assert_allclose(estimate.x_hat, mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(estimate.eps_hat, (z - alpha * mean) / sigma, rtol=0, atol=1e-9 * alpha / sigma + 1e-12)


def test_bound_of_a_silent_categorical_network_is_the_order_0_code(model_of, losses, times, noise) -> None:
    """The untrained default model's bound is the code length of its smoothed histogram.

    The exact denoiser's bound is the code length for each level, not only on average, if SNR falls from infinity to
    zero (pointwise I-MMSE). Ends of -13.3 and 22 are near enough.
    """
    counts = jnp.asarray(COUNTS[:1, :1])
    model = model_of(
        lambda z, gamma: jnp.zeros((1, 1, 1, LEVELS)),
        schedule=FixedLinear(gamma_max=22.0),
        prediction=Categorical(counts),
        observation=CategoricalObservation(LEVELS),
        shape=(1, 1, 1),
    )
    (t, weight), (eps, density) = times, noise

    @eqx.filter_jit
    def bound(image: Array) -> Array:
        x = model.observation.encode(image)
        diffusion = jax.lax.map(lambda e: weight @ losses(model, x, e, t), eps.reshape(-1, 1, 1, 1))
        reconstruction = jax.vmap(lambda e: reconstruction_loss(model, image, e))(eps.reshape(-1, 1, 1, 1))
        return prior_loss(model, x) + density @ (diffusion + reconstruction)

    bounds = [bound(jnp.full((1, 1, 1), level, jnp.uint8)) for level in range(LEVELS)]
    code_length = -np.log((COUNTS[0, 0, 0] + 0.5) / (COUNTS[0, 0, 0].sum() + 0.5 * LEVELS))
    # At the noisy end prior and KL(q(z_1 | x) || p(z_1)) are x^2 SNR / 2 < 1.4e-10 each. At the other
    # levels are 0.4 / sigma_0 = 309 standard deviations apart.
    np.testing.assert_allclose(bounds, code_length, rtol=0, atol=1e-9)


def test_certain_categorical_network_has_no_diffusion_loss(model_of, losses) -> None:
    """A network that is certain of the true levels has zero diffusion loss."""
    image = jnp.asarray(np.random.default_rng(1).integers(0, LEVELS, SHAPE).astype(np.uint8))
    certain = 1e9 * jax.nn.one_hot(image, LEVELS)
    observation = CategoricalObservation(LEVELS)
    prediction = Categorical(jnp.asarray(COUNTS))
    model = model_of(lambda z, gamma: certain, prediction=prediction, observation=observation, shape=SHAPE)
    loss = losses(model, observation.encode(image), _normal(1, *SHAPE), jnp.linspace(0, 1, 7))
    np.testing.assert_allclose(loss, 0, atol=1e-23)  # as for the perfect eps: (1e-16 / sigma_0)^2, 6 pixels


def test_lattice_is_a_normal_density_on_the_levels(path) -> None:
    """p(x_k | z) ~ exp(-(SNR + e^r) (x_k - x_net)^2 / 2) with r = 7 + output, clipped to 0..14."""
    g, z, x = jnp.array(-2.0), _normal(1, *SHAPE), np.asarray(level_values(LEVELS))
    net, r = _normal(2, *SHAPE), jnp.asarray([-9.0, -7.0, -5.0, -3.0, 0.0, 9.0]).reshape(SHAPE)
    log_probs = Lattice(LEVELS)(jnp.stack([net, r], -1), z, g, path).log_probs
    x_net = np.asarray((z - path.sigma(g) * (z + net)) / path.alpha(g))[..., None]
    precision = np.exp(2.0) + np.exp([0.0, 0.0, 2.0, 4.0, 7.0, 14.0]).reshape(*SHAPE, 1)
    # odds against the first level need no normalisation; the highest precision's logits reach 1e7
    expected = -precision / 2 * ((x - x_net) ** 2 - (x[0] - x_net) ** 2)
    np.testing.assert_allclose(log_probs - log_probs[..., :1], expected, rtol=1e-12, atol=1e-8)


@pytest.mark.parametrize("gamma", [-6.0, 0.0, 5.0])
def test_silent_lattice_network_gives_eps_hat_z(gamma: float) -> None:
    """An untrained lattice model of 8-bit images has eps_hat = z, as the paper's network does."""
    path, g = VariancePreserving(), jnp.array(gamma)
    x_net = jnp.linspace(-0.6, 0.6, 6).reshape(SHAPE)
    z = x_net * path.alpha(g) / (1 - path.sigma(g))  # so that x_net is the untrained network's guess
    estimate = Lattice(256)(jnp.zeros((*SHAPE, 2)), z, g, path)
    # the levels' mean misses x_net by exp(-2 pi^2 / (precision spacing^2)), precision < 1500, and by the mass
    # beyond the last level, 13 standard deviations away: both below rounding, which is (alpha / sigma) 1e-15
    np.testing.assert_allclose(estimate.eps_hat, z, rtol=0, atol=1e-13)


def test_lattice_rounds_to_levels_where_the_noise_is_small() -> None:
    """Where noise is small, x_hat of the lattice prediction is rounded to the nearest level."""
    path, g, x = VariancePreserving(), jnp.array(-13.3), level_values(256)
    near = x[100:106].reshape(SHAPE) + 0.25 / 256  # a quarter of half a bin off
    z = near * path.alpha(g)
    output = jnp.stack([-z, jnp.zeros(SHAPE)], -1)  # eps_hat = 0: x_net is z / alpha
    x_hat = Lattice(256)(output, z, g, path).x_hat
    # the next level is (1.75^2 - 0.25^2) / 256^2 further off in the square, times SNR / 2: 1.1e-6 as likely
    np.testing.assert_allclose(x_hat, x[100:106].reshape(SHAPE), rtol=0, atol=2 / 256 * 1e-5)
