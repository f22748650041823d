# SPDX-License-Identifier: Apache-2.0
"""Distributions whose -log P is known: their probabilities, and the exact denoiser derived from them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vdmkit.data import GaussianData, MixtureData
from vdmkit.decoders import CategoricalObservation
from vdmkit.errors import RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.process import VariancePreserving
from vdmkit.schedules import FixedLinear
from vdmkit.toy_data import Exact, LevelMixture

# Two pixels, three levels, two components, nothing symmetric: nine images.
TINY = LevelMixture((1, 2, 1), 3, (0.3, 0.7), ((-0.6, 0.1), (0.5, 0.4)), ((0.4, 0.8), (0.3, 0.5)))
ALL_IMAGES = np.array(list(itertools.product(range(3), repeat=2)), np.uint8).reshape(9, 1, 2, 1)
ORACLES = {"gaussian": GaussianData(), "mixture": MixtureData()}


@pytest.mark.parametrize("oracle", ORACLES)
def test_probabilities_of_a_pixel_sum_to_one(oracle: str) -> None:
    """The probabilities of a pixel's levels sum to one."""
    total = np.exp(ORACLES[oracle].distribution.log_probs()).sum(-1)
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-12)  # 17 roundings of 1e-16, and rounding of the logs


def test_probabilities_of_all_images_sum_to_one() -> None:
    """The probabilities of all images sum to one: components are weighted, and mixed image by image."""
    np.testing.assert_allclose(np.exp(-TINY.nats(ALL_IMAGES)).sum(), 1, rtol=0, atol=1e-12)  # 9 roundings


@pytest.mark.parametrize("mean", [-4.0, 4.0])
def test_a_level_far_in_the_tail_has_its_probability(mean: float) -> None:
    """A level 49 standard deviations out has its exact probability, where a difference of two Phi would be 0.

    Relative to its value at the bin edge nearest the mean the density is smooth over a bin, so Gauss-Legendre is exact.
    """
    levels, sd = 16, 0.1
    found = LevelMixture((1, 1, 1), levels, (1.0,), ((mean,),), ((sd,),)).log_probs().ravel()[1:-1]
    edges = (2 * np.arange(1, levels) / levels - 1 - mean) / sd
    near = np.minimum(abs(edges[:-1]), abs(edges[1:]))
    node, weight = np.polynomial.legendre.leggauss(40)
    width = np.diff(edges)[:, None]
    inside = (width / 2 * weight * np.exp(-width / 2 * (1 + node) * (near[:, None] + width / 4 * (1 + node)))).sum(1)
    assert found.min() < -1000  # exp of it is 0 in float64
    np.testing.assert_allclose(found, stats.norm.logpdf(near) + np.log(inside), rtol=1e-14, atol=1e-12)


def test_a_mirrored_distribution_has_mirrored_probabilities() -> None:
    """The upper tail, where Phi is 1 in float64, is as accurate as the lower."""
    up, down = (
        LevelMixture((1, 1, 1), 17, (1.0,), ((sign * 1.5,),), ((0.05,),)).log_probs().ravel() for sign in (1, -1)
    )
    np.testing.assert_allclose(up, down[::-1], rtol=1e-13)  # roundings of (edge - mean) / sd, twice its square


def _chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    expected = counts.sum() * probs
    return float(((counts - expected) ** 2 / expected).sum())


def test_images_are_drawn_as_often_as_they_are_probable() -> None:
    """`sample` draws all nine images with the probabilities of `nats`, dependence between pixels included."""
    drawn = TINY.sample(100_000, seed=3).reshape(-1, 2)
    counts = np.bincount(drawn @ np.array([3, 1]), minlength=9)
    probs = np.exp(-TINY.nats(ALL_IMAGES))
    limit = stats.chi2(8).ppf(1 - 1e-4)  # false alarm 1e-4; the rarest image is expected 4,000 times
    assert _chi_square(counts, probs) < limit
    independent = np.outer(probs.reshape(3, 3).sum(1), probs.reshape(3, 3).sum(0)).ravel()
    assert _chi_square(counts, independent) > 10 * limit  # the pixels are dependent


def test_every_pixel_is_drawn_by_its_own_probabilities() -> None:
    """Each pixel is drawn by its own probabilities; the pixels' standard deviations fall tenfold."""
    source = GaussianData(shape=(2, 3, 2), levels=5)
    drawn, probs = source.distribution.sample(20_000, seed=4), np.exp(source.distribution.log_probs()[0])
    counts = (drawn[..., None] == np.arange(5)).sum(0)
    pooled = [
        np.stack([c[:, 0] + c[:, 1], c[:, 2], c[:, 3] + c[:, 4]], -1)
        for c in (counts.reshape(12, 5), probs.reshape(12, 5))
    ]
    found = [_chi_square(c, p) for c, p in zip(*pooled, strict=True) if p.min() > 1e-3]  # expected at least 20 times
    assert len(found) > 6
    assert sum(found) < stats.chi2(2 * len(found)).ppf(1 - 1e-4)  # false alarm 1e-4


@pytest.mark.parametrize("gamma", [-4.0, 0.0, 3.0])
def test_posterior_is_bayes_rule_over_all_images(path, gamma: float) -> None:
    """The pixels' posteriors and both estimates are those of Bayes' rule over all images, on any path."""
    g, x = jnp.array(gamma), (2 * ALL_IMAGES.reshape(9, 2) + 1) / 3 - 1
    alpha, sigma = float(path.alpha(g)), float(path.sigma(g))
    z = alpha * np.array([-0.2, 0.5]) + sigma * np.array([0.7, -0.4])
    log_joint = -TINY.nats(ALL_IMAGES) - ((z - alpha * x) ** 2).sum(1) / (2 * sigma**2)
    share = np.exp(log_joint - np.logaddexp.reduce(log_joint)).reshape(3, 3)
    estimate = Exact(TINY)(jnp.zeros((1, 2, 1, 1)), jnp.asarray(z).reshape(1, 2, 1), g, path)
    probs = np.exp(np.asarray(estimate.log_probs)).reshape(2, 3)
    np.testing.assert_allclose(probs, [share.sum(1), share.sum(0)], rtol=0, atol=1e-10)  # identity in float64
    x_hat = probs @ (2 * np.arange(3) + 1 - 3) / 3
    np.testing.assert_allclose(np.ravel(estimate.x_hat), x_hat, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.ravel(estimate.eps_hat), (z - alpha * x_hat) / sigma, rtol=0, atol=1e-10)


def test_components_are_told_apart_in_float32() -> None:
    """Evidence that all components share, of size 2e5 at a far latent with little noise, does not cost float32
    accuracy.

    The last pixel lies between its two levels, so that the components alone decide on it.
    """
    two = LevelMixture((1, 8, 1), 2, (0.5, 0.5), ((0.0,) * 8, (0.4,) * 8), ((0.3,) * 8, (0.3,) * 8))
    z = np.array([3.0, -3.0, 3.0, -3.0, 3.0, -3.0, 3.0, 0.0]).reshape(1, 8, 1)
    posterior = jax.jit(lambda z, gamma: two.posterior(z, gamma, VariancePreserving())[0, -1, 0])
    exact = np.asarray(posterior(jnp.asarray(z), jnp.asarray(-9.0)))
    with jax.enable_x64(False):
        rounded = np.asarray(posterior(jnp.asarray(z, np.float32), jnp.asarray(-9.0, np.float32)))
    np.testing.assert_allclose(rounded, exact, rtol=0, atol=1e-5)  # sums of 8 logs of size 3: 8 * 3 * 6e-8


def _model(distribution: LevelMixture) -> DiffusionModel:
    """Builds a model with ends so wide that levels are never mistaken.

    The prior term of 16 pixels, x^2 SNR_1 / 2 each, is below 1e-3 nats.
    """
    return DiffusionModel(
        schedule=FixedLinear(gamma_min=-9.0, gamma_max=9.0),
        path=VariancePreserving(),
        prediction=Exact(distribution),
        network=NoNetwork(1),
        observation=CategoricalObservation(distribution.levels),
        shape=distribution.shape,
    )


@pytest.mark.costly
@pytest.mark.parametrize("oracle", ORACLES)
def test_bound_of_the_exact_denoiser_is_minus_log_p(oracle: str, quick_key, bound_of_images) -> None:
    """The bound of the exact denoiser is unbiased for -log P, for independent and for dependent pixels."""
    distribution, images = ORACLES[oracle].distribution, ORACLES[oracle].load("test").pixels
    bound = bound_of_images(_model(distribution), images, draws=16, steps=0, batch_size=300, key=quick_key)
    errors = (bound.total - distribution.nats(images)).mean(0)
    # 4 standard errors of the mean over 300 images, false alarm 6e-5
    limit = 4 * errors.std(ddof=1) / np.sqrt(len(errors))
    assert abs(errors.mean()) < limit
    assert 0.1 < limit < 2  # nats of 16 pixels: the errors are not zero, and small


def test_the_mixtures_pixels_depend_on_each_other() -> None:
    """The mixture's marginals have a code length that is more than 1 nat longer than -log P."""
    distribution, images = ORACLES["mixture"].distribution, ORACLES["mixture"].load("test").pixels
    marginal = np.logaddexp.reduce(
        np.log(distribution.weights)[:, None, None, None, None] + distribution.log_probs(), 0
    )
    code = -np.take_along_axis(marginal[None], images[..., None].astype(int), -1).sum((1, 2, 3, 4))
    assert (code - distribution.nats(images)).mean() > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (0.5, 0.6)}, "sum to 1"),
        ({"weights": (1.5, -0.5)}, "positive"),
        ({"weights": (1.0,)}, "as many means and sds as weights"),
        ({"means": ((0.0,), (0.0,))}, "2 pixels each"),
        ({"levels": 1}, "expected 2 to 256"),
        ({"sds": ((0.4, 0.0), (0.3, 0.5))}, "standard deviation"),
        ({"means": ((float("nan"), 0.0), (0.0, 0.0))}, "mean is not finite"),
    ],
)
def test_numbers_of_no_distribution_are_refused(change: dict, message: str) -> None:
    """Parameters that do not define a distribution are refused."""
    parts = {name: getattr(TINY, name) for name in ("shape", "levels", "weights", "means", "sds")}
    with pytest.raises(RecipeError, match=message):
        LevelMixture(**parts | change)
