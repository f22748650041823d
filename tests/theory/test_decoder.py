# SPDX-License-Identifier: Apache-2.0
"""The encoding of levels and the decoder p(x | z_0)."""

import math
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import vdmkit
from vdmkit.decoders import CategoricalObservation, DiscretisedGaussian
from vdmkit.errors import RecipeError
from vdmkit.losses import bits_per_dim, reconstruction_loss
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import state_like
from vdmkit.schedules import FixedLinear

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"


@eqx.filter_jit
def not_asked() -> Array:
    """Estimate that the categorical decoder does not use."""
    raise AssertionError


def _log_probs(observation: CategoricalObservation, images: Array, z_0: Array, gamma_0: Array) -> Array:
    return jax.vmap(lambda image: observation.log_prob(image, z_0, gamma_0, not_asked))(images)


def _one_pixel(level: int):
    return jnp.full((1, 1, 1), level, jnp.uint8)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_are_the_centres_of_equal_bins(levels: int) -> None:
    """Level k is encoded as 2 (k + 1/2) / V - 1, which is what the authors' networks expect."""
    image = jnp.arange(levels, dtype=jnp.uint8)[:, None, None]
    expected = -1 + 1 / levels + 2 / levels * np.arange(levels)
    np.testing.assert_allclose(CategoricalObservation(levels).encode(image).ravel(), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("levels", [5, 17, 100, 256])
def test_rounding_gives_no_probability_above_one(levels: int) -> None:
    """In float32 log p(x | z_0) exceeds zero by rounding only, even where there is little noise."""
    observation = CategoricalObservation(levels)

    @jax.jit
    def log_prob(image: Array, eps: Array, gamma_0: Array) -> Array:
        return observation.log_prob(image, observation.encode(image) + jnp.exp(gamma_0 / 2) * eps, gamma_0, not_asked)

    with jax.enable_x64(False):
        image = jnp.asarray(np.random.default_rng(0).integers(0, levels, (16, 16, 3)), jnp.uint8)
        eps = jax.random.normal(jax.random.key(0), image.shape)
        for gamma_0 in (-13.3, -24.0, -30.0):
            assert log_prob(image, eps, jnp.float32(gamma_0)) < 1e-5  # nats, summed over 768 values


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("gamma_0", [-13.3, -6.0, 2.0])
def test_probabilities_sum_to_one(levels: int, gamma_0: float) -> None:
    """p(x | z_0) sums to one over all levels, even for z_0 far outside the data range."""
    every_image = jnp.asarray(np.arange(levels, dtype=np.uint8)[:, None, None, None])
    observation = CategoricalObservation(levels)
    for z_0 in (0.1, -0.73, 3.0, -50.0):
        log_probs = _log_probs(observation, every_image, jnp.full((1, 1, 1), z_0), jnp.array(gamma_0))
        # the likeliest level's logit is at most (1/V / sigma_0)^2 / 2 = 4e4 inside (V = 2), (51 / sigma_0)^2 / 2 = 8e8
        # outside; some roundings of it
        np.testing.assert_allclose(np.exp(log_probs).sum(), 1, rtol=4e-11 if abs(z_0) < 1 else 8e-7)


@pytest.mark.parametrize(
    ("level", "e", "expected"),
    [(100, 0.0, 0.0), (100, 1.0, -5.126e-6), (100, 3.5, -2.959100), (0, -2.0, 0.0), (255, 3.0, 0.0)],
)
def test_decoder_has_the_papers_values(level: int, e: float, expected: float) -> None:
    """The decoder's log-probability of a latent e standard deviations from its level is that of PAPER 19.13."""
    observation = CategoricalObservation(256)
    z_0 = observation.encode(_one_pixel(level)) + np.exp(-13.3 / 2) * e
    log_prob = _log_probs(observation, _one_pixel(level)[None], z_0, jnp.array(-13.3))[0]
    # The values are float32's: log(1 + p) is rounded to 6e-8, and z_0 to 1.5e-8, or 1.2e-5 standard deviations. The
    # slope of log p is that share of the distance to the next level, 6.04, which is not this level's probability.
    np.testing.assert_allclose(log_prob, expected, rtol=0, atol=6e-8 + 1.2e-5 * 6.04 * -np.expm1(expected))


@pytest.mark.parametrize(
    ("log_snr", "level", "expected", "atol"),
    [
        (13.3, 100, 0.01045, 5e-6),
        (13.3, 0, 0.00523, 5e-6),
        (12.0, 100, 0.418, 5e-4),
        (11.8, 100, 0.546, 5e-4),
        (10.0, 100, 1.834, 5e-4),
        (8.0, 100, 3.276, 5e-4),
        (6.0, 100, 4.719, 5e-4),
    ],
)
def test_reconstruction_costs_what_the_paper_says(
    model_of, noise, log_snr: float, level: int, expected: float, atol: float
) -> None:
    """The expected reconstruction term in bits per dimension is that of PAPER section 4, to its decimals."""
    schedule = FixedLinear(gamma_min=-log_snr)
    model = model_of(lambda z, gamma: z, schedule=schedule, observation=CategoricalObservation(256), shape=(1, 1, 1))
    eps, weight = noise
    loss = eqx.filter_jit(jax.vmap(lambda e: reconstruction_loss(model, _one_pixel(level), e.reshape(1, 1, 1))))(eps)
    np.testing.assert_allclose(bits_per_dim(weight @ loss, 1), expected, rtol=0, atol=atol)


def test_decoding_gives_the_nearest_level() -> None:
    """Decoding returns the nearest level, and the end level for latents beyond the range."""
    observation = CategoricalObservation(17)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 17, (4, 4, 3)).astype(np.uint8))
    within_half_a_bin = rng.uniform(-0.99, 0.99, image.shape) / 17
    decoded = observation.decode(observation.encode(image) + within_half_a_bin, jnp.array(-13.3), not_asked)
    np.testing.assert_array_equal(decoded, image)
    beyond = observation.decode(jnp.full(image.shape, -7.0), jnp.array(-13.3), not_asked)
    np.testing.assert_array_equal(beyond, 0)


@pytest.mark.parametrize("observation", [CategoricalObservation(17), DiscretisedGaussian(17)], ids=["even", "ddpm"])
def test_bins_of_levels_tile_the_axis(observation) -> None:
    """Encoded levels are `spacing` apart, so that the bins of the ODE likelihood neither overlap nor leave gaps."""
    x = observation.encode(jnp.arange(17, dtype=jnp.uint8).reshape(1, 17, 1)).ravel()
    np.testing.assert_allclose(jnp.diff(x), observation.spacing, rtol=1e-12)


def test_predictions_of_levels_know_where_these_lie() -> None:
    """A prediction over levels is refused with an observation that encodes them elsewhere.

    Otherwise the bound would be 3.8 bits/dim instead of 2.5174.
    """
    recipe = load_recipe(RECIPES / "oracle_gaussian.toml", ["model.observation.name=discretised_gaussian"])
    with pytest.raises(RecipeError, match="the observation puts them elsewhere"):
        state_like(recipe, (4, 4, 1), 17)


GAMMA_0 = (-13.3, -11.2, -11.0, -9.0, 2.0)  # below about -11.1, 256 levels are summed in a window around z_0


@pytest.mark.parametrize("gamma_0", GAMMA_0)
def test_a_window_of_levels_is_exact(gamma_0: float) -> None:
    """Summing over a window of levels is exact to rounding, for the reconstruction term and for its gradients."""
    observation = CategoricalObservation(256)
    image, eps = _image_and_noise()

    def loss(gamma_0: Array, eps: Array, *, of_all: bool) -> Array:
        z_0 = observation.encode(image) + jnp.exp(gamma_0 / 2) * eps
        if not of_all:
            return observation.log_prob(image, z_0, gamma_0, not_asked)
        log_probs = observation.log_probs(z_0, gamma_0, not_asked)
        return jnp.take_along_axis(log_probs, image[..., None].astype(int), axis=-1).sum()

    found, expected = (
        jax.value_and_grad(lambda *a, of=of: loss(*a, of_all=of), (0, 1))(jnp.array(gamma_0), eps)
        for of in (False, True)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)  # roundings


def test_the_reconstruction_term_never_holds_all_levels() -> None:
    """No array in the compiled gradient is larger than the table of 256 levels."""
    observation = CategoricalObservation(256)
    image, eps = _image_and_noise()
    gradient = jax.grad(lambda z_0: observation.log_prob(image, z_0, jnp.array(-9.0), not_asked))
    shapes = re.findall(r"f64\[([\d,]+)\]", jax.jit(gradient).lower(eps).compile().as_text())
    largest = max(math.prod(map(int, shape.split(","))) for shape in shapes)
    assert largest == 256 > eps.size  # the table of levels


def _image_and_noise() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(256, size=(8, 8, 3)), jnp.uint8)
    return image, jnp.asarray(1.5 * rng.standard_normal(image.shape))
