# SPDX-License-Identifier: Apache-2.0
"""Continuous data of known density: the density, the exact denoiser, and every estimator's value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vdmkit.data import GaussianData, MixtureData
from vdmkit.decoders import CategoricalObservation, GaussianObservation
from vdmkit.errors import RecipeError
from vdmkit.likelihood import ProbabilityFlow
from vdmkit.likelihood.exact import gaussian_terms
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.process import VariancePreserving
from vdmkit.schedules import FixedLinear
from vdmkit.toy_data import Exact, GaussianMixture

SHAPE = (3, 2, 2)
WAVES = GaussianData(shape=SHAPE, levels=0, mean=0.2, sd_max=0.6, sd_min=0.1, basis="cosine", test_count=4000)
BLOTS = MixtureData(shape=SHAPE, levels=0, test_count=200)
SOURCES = pytest.mark.parametrize("source", [WAVES, BLOTS], ids=["gaussian", "mixture"])
ENDS = (-24.0, 40.0)  # the data in z_1: alpha_1 |m . z_1| = 2e-9


def moments(distribution: GaussianMixture) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and covariance matrix of each component, from the basis one unit vector at a time."""
    basis = np.stack([np.ravel(distribution.coordinates(e)) for e in np.eye(12).reshape(12, *SHAPE)])
    return [
        (np.asarray(mean), basis @ np.diag(np.square(sd)) @ basis.T)
        for mean, sd in zip(distribution.means, distribution.sds, strict=True)
    ]


def model(distribution: GaussianMixture, gamma_0: float, gamma_1: float) -> DiffusionModel:
    schedule = FixedLinear(gamma_min=gamma_0, gamma_max=gamma_1)
    return DiffusionModel(
        schedule=schedule,
        path=VariancePreserving(),
        prediction=Exact(distribution),
        network=NoNetwork(1),
        observation=GaussianObservation(0),
        shape=distribution.shape,
    )


@SOURCES
def test_the_density_is_that_of_scipy(source) -> None:
    """The log density of a source equals SciPy's, from the spectrum, its axes and the weights."""
    images = source.load("test").pixels[:20]
    assert images.dtype == np.float32
    parts = [stats.multivariate_normal(*m).logpdf(images.reshape(20, 12)) for m in moments(source.distribution)]
    expected = np.logaddexp.reduce(np.log(source.distribution.weights)[:, None] + parts, axis=0)
    np.testing.assert_allclose(-source.distribution.nats(images), expected, rtol=1e-12)  # float64


def test_waves_are_dependent_pixels_with_the_given_spectrum() -> None:
    """Images have dependent pixels, and their sample covariance matches that of their density."""
    (mean, covariance), pixels = moments(WAVES.distribution)[0], WAVES.load("test").pixels.reshape(4000, 12)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance)[::-1], np.geomspace(0.36, 0.01, 12), rtol=1e-12)
    assert abs(covariance - np.diag(np.diag(covariance))).max() > 0.05  # the pixels are dependent
    # 5 standard errors of a covariance of 4,000 draws, at most 5 sqrt(2 / 4000) of the largest variance
    assert abs(np.cov(pixels.T) - covariance).max() < 0.11 * np.diag(covariance).max()
    assert abs(pixels.mean(0) - mean).max() < 5 * np.sqrt(np.diag(covariance).max() / 4000)


@pytest.mark.costly
@SOURCES
@pytest.mark.parametrize("gamma", [-12.0, -2.0, 3.0])
def test_the_denoiser_is_the_score_of_the_noisy_density(source, gamma: float, path) -> None:
    """x_hat and eps_hat are the posterior means on every path (Tweedie: eps_hat = -sigma grad log q)."""
    distribution, g = source.distribution, jnp.asarray(gamma)
    alpha, sigma = path.alpha(g), path.sigma(g)
    z = alpha * distribution.sample(1, 5)[0] + sigma * jax.random.normal(jax.random.key(0), SHAPE)
    noise = float(sigma**2) * np.eye(12)

    def log_q(z):
        parts = [
            jax.scipy.stats.multivariate_normal.logpdf(z.ravel(), alpha * mean, alpha**2 * covariance + noise)
            for mean, covariance in moments(distribution)
        ]
        return jax.nn.logsumexp(jnp.log(jnp.asarray(distribution.weights)) + jnp.stack(parts))

    found = Exact(distribution)(jnp.zeros((*SHAPE, 1)), z, g, path)
    np.testing.assert_allclose(found.eps_hat, -sigma * jax.grad(log_q)(z), rtol=1e-7, atol=1e-9)  # Cholesky in float64
    np.testing.assert_allclose(alpha * found.x_hat + sigma * found.eps_hat, z, rtol=0, atol=1e-12)


def test_the_continuous_bound_between_wide_ends_is_minus_log_p() -> None:
    """The closed-form terms sum to -log p of every single image (pointwise I-MMSE)."""
    images = WAVES.load("test").pixels[:50]
    found = gaussian_terms(WAVES.distribution, images, np.array(ENDS), continuous=True)
    # exp(-24) = 4e-11 over the smallest variance, 0.01, times y^2 / s^2
    np.testing.assert_allclose(found.total, WAVES.distribution.nats(images), rtol=0, atol=1e-6)


def test_many_steps_approach_the_continuous_bound_as_one_over_t() -> None:
    """The T-step bound exceeds the continuous one by O(1 / T)."""
    images = WAVES.load("test").pixels[:5]

    def total(steps: int) -> np.ndarray:
        return np.asarray(gaussian_terms(WAVES.distribution, images, np.linspace(-8, 6, steps + 1)).total)

    limit = np.asarray(gaussian_terms(WAVES.distribution, images, np.array([-8.0, 6.0]), continuous=True).total)
    few, more = total(1000) - limit, total(2000) - limit
    assert (more > 0).all()
    np.testing.assert_allclose(few / more, 2, rtol=0.01)  # first order in 14 / 1000; the second-order term is as large


def test_the_noisy_end_costs_what_it_must() -> None:
    """The density p(x | z_0) is normalised, with mean z_0 and variance e^gamma_0."""
    observation, z_0, gamma = GaussianObservation(0), jnp.array([[[0.3]]]), jnp.asarray(-1.0)
    x = jnp.linspace(-6, 6, 2001)
    density = jnp.exp(jax.vmap(lambda x: observation.log_prob(x.reshape(1, 1, 1), z_0, gamma, lambda: z_0))(x))
    assert float(density.sum() * (x[1] - x[0])) == pytest.approx(1, abs=1e-12)  # trapezoid, smooth, both ends at 0
    assert float((x * density).sum() * (x[1] - x[0])) == pytest.approx(0.3, abs=1e-12)
    assert float(((x - 0.3) ** 2 * density).sum() * (x[1] - x[0])) == pytest.approx(np.exp(-1), abs=1e-12)


@pytest.mark.costly
@SOURCES
def test_the_flow_gives_the_density_of_the_data(source) -> None:
    """The ODE's likelihood of continuous data is exact to 1e-6."""
    images = source.load("test").pixels[:6]
    estimator = ProbabilityFlow(rtol=1e-9, atol=1e-9, divergence="exact")
    found = estimator(
        model(source.distribution, *ENDS),
        jnp.asarray(images),
        jnp.arange(6),
        None,
        replicate=0,
        key=jax.random.key(0, impl="rbg"),
    )
    assert not np.asarray(found.failed).any()
    # per image and relative to the whole; 1e-9 a step, and ends of exp(-24)
    np.testing.assert_allclose(found.nats, source.distribution.nats(images), rtol=1e-6)
    assert "log p of the flow" in estimator.describe(0)
    assert "bound" not in estimator.describe(0)


def test_levels_and_continuous_data_are_not_mixed_up() -> None:
    """Settings for levels are refused for continuous data, and the other way round."""
    with pytest.raises(RecipeError, match="the categorical observation needs data with levels"):
        CategoricalObservation(0)
    with pytest.raises(RecipeError, match="the gaussian observation needs continuous data, but these have 17"):
        GaussianObservation(17)
    for levels, dequantisation in ((0, "uniform"), (0, "truncated_normal"), (17, "none")):
        with pytest.raises(RecipeError, match=f'dequantisation = "{dequantisation}" with {levels} levels'):
            ProbabilityFlow(dequantisation=dequantisation).check_levels(levels)
    with pytest.raises(RecipeError, match="continuous data have nothing to sample"):
        ProbabilityFlow(samples=4, divergence="exact").check_levels(0)
    with pytest.raises(RecipeError, match="known for independent pixels only"):
        GaussianData(basis="cosine")
    with pytest.raises(RecipeError, match="3 components"):
        gaussian_terms(BLOTS.distribution, BLOTS.load("test").pixels, np.array(ENDS), continuous=True)
