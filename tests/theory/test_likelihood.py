# SPDX-License-Identifier: Apache-2.0
"""The bound of a test set: unbiased for every image, independent of batches, refused if a term is not finite."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from vdmkit.decoders import AbstractObservation, CategoricalObservation
from vdmkit.errors import DataError, UntrustedError
from vdmkit.likelihood import VariationalBound
from vdmkit.likelihood.log_likelihood import log_likelihood
from vdmkit.losses import prior_loss
from vdmkit.losses.bound import Bound
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork
from vdmkit.predictions import Categorical
from vdmkit.process import VariancePreserving
from vdmkit.schedules import FixedLinear, LogNormal

SHAPE, LEVELS, COUNT = (2, 2, 1), 3, 300
COUNTS = np.array([1, 5, 14], np.int32)
IMAGES = np.random.default_rng(0).integers(0, LEVELS, (COUNT, *SHAPE)).astype(np.uint8)


@pytest.fixture(scope="module")
def order_0(model_of) -> DiffusionModel:
    """The exact denoiser of independent pixels, over a range of gammas so wide that its bound is their code length."""
    return model_of(
        lambda z, gamma: jnp.zeros((*SHAPE, LEVELS)),
        schedule=FixedLinear(gamma_min=-8.0, gamma_max=16.0),
        prediction=Categorical(jnp.broadcast_to(jnp.asarray(COUNTS), (*SHAPE, LEVELS))),
        observation=CategoricalObservation(LEVELS),
        shape=SHAPE,
    )


@pytest.fixture(scope="module")
def bound(order_0, bound_of_images) -> Bound:
    return bound_of_images(order_0, IMAGES, draws=8, steps=0, batch_size=128, key=jax.random.key(0))


def test_bound_of_independent_pixels_is_their_code_length(bound: Bound) -> None:
    """The estimate is unbiased: its mean error against the known code lengths of the smoothed histogram is zero."""
    share = (COUNTS + 0.5) / (COUNTS + 0.5).sum()
    code_length = -np.log(share)[IMAGES].sum((1, 2, 3))
    error = bound.total - code_length
    assert error.shape == (2, COUNT)
    # 4 standard errors of the mean over images and replicates, false alarm 6e-5. The ends cost no more than
    # 4 pixels of x^2 SNR_1 / 2 < 1e-7, and levels are 0.67 / sigma_0 = 36 standard deviations apart.
    means = error.mean(0)
    np.testing.assert_allclose(means.mean(), 0, atol=4 * means.std(ddof=1) / np.sqrt(COUNT))
    assert abs(means).mean() > 1e-3  # the estimates do have errors


def test_the_schedule_between_its_ends_changes_no_draw(order_0, bound: Bound, bound_of_images) -> None:
    """Estimates depend on the schedule's ends only, even if it passes the tails fast, as EDM's does."""
    passes_fast = LogNormal(mean=-1.2, std=0.8, sigma_min=float(np.exp(-4)), sigma_max=float(np.exp(8)))
    model = eqx.tree_at(lambda model: model.schedule, order_0, passes_fast, is_leaf=lambda x: x is order_0.schedule)
    found = bound_of_images(model, IMAGES, draws=8, steps=0, batch_size=128, key=jax.random.key(0))
    # the ends are 3.5 and 11.5 standard deviations away, where the inverse normal CDF has limited precision
    np.testing.assert_allclose(found.total, bound.total, rtol=1e-9, atol=1e-9)


def test_an_images_two_estimates_err_independently(bound: Bound) -> None:
    """The errors of the two replicates are uncorrelated."""
    share = (COUNTS + 0.5) / (COUNTS + 0.5).sum()
    first, second = bound.total + np.log(share)[IMAGES].sum((1, 2, 3))
    correlation = np.corrcoef(first, second)[0, 1]
    np.testing.assert_allclose(correlation, 0, atol=4 / np.sqrt(COUNT))  # 4 standard errors, false alarm 6e-5


class _Blank(AbstractObservation):
    """Every image is 0, and -log p(x | z_0) = |z_0|^2."""

    levels: int = LEVELS

    def encode(self, image):
        return jnp.zeros(image.shape)

    def log_prob(self, image, z_0, gamma_0, estimate):
        return -(z_0**2).sum()

    def decode(self, z_0, gamma_0, estimate):
        return jnp.zeros(z_0.shape, jnp.uint8)


def test_an_images_two_estimates_have_times_of_their_own(model_of, bound_of_images) -> None:
    """The two replicates have independent, uniformly distributed times."""
    path, schedule = VariancePreserving(), FixedLinear(gamma_min=0.0, gamma_max=1.0)
    # eps_hat = eps + sqrt(gamma) and gamma = t: the loss of 4 pixels is 2 t
    eps_hat = lambda z, gamma: z / path.sigma(gamma) + jnp.sqrt(gamma)  # noqa: E731
    model = model_of(eps_hat, schedule=schedule, observation=_Blank(), shape=SHAPE)
    bound = bound_of_images(model, IMAGES, draws=2, steps=0, batch_size=COUNT, key=jax.random.key(0))
    t = bound.diffusion / 2
    assert all(stats.kstest(row, "uniform").pvalue > 1e-5 for row in t)  # false alarm 2e-5
    np.testing.assert_allclose(np.corrcoef(t)[0, 1], 0, atol=4 / np.sqrt(COUNT))  # 4 standard errors, 6e-5


def test_every_draw_has_noise_of_its_own(model_of, bound_of_images) -> None:
    """All draws of an image, of both terms and both replicates, have independent noise.

    With eps_hat = 0, gamma' = 2 and gamma_0 = 0 the two terms are the means of |eps|^2 and |eps_0|^2.
    """
    schedule, strata = FixedLinear(gamma_min=0.0, gamma_max=2.0), 16
    model = model_of(lambda z, gamma: 0 * z, schedule=schedule, observation=_Blank(), shape=SHAPE)
    bound = bound_of_images(model, IMAGES, draws=2 * strata, steps=0, batch_size=COUNT, key=jax.random.key(0))
    sums = strata * np.concatenate([bound.reconstruction, bound.diffusion])  # sums of 4 squares each
    assert all(stats.kstest(row, stats.chi2(4 * strata).cdf).pvalue > 1e-5 for row in sums)  # false alarm 4e-5
    # 5 standard errors, 6 pairs: false alarm 3e-6
    np.testing.assert_allclose(np.corrcoef(sums), np.eye(4), rtol=0, atol=5 / np.sqrt(COUNT))


class _Original(AbstractNetwork):
    """Returns NaN for inputs that are marked as augmented, and with dropout."""

    def __call__(self, z, gamma, condition, *, key=None):
        spoiled = (condition.get("augmented", 0.0) != 0) | (key is not None)
        return jnp.where(spoiled, jnp.nan, z)[..., None]


def test_test_images_are_no_augmented_ones_and_nothing_is_dropped(broken, quick_key, bound_of_images) -> None:
    """Test images are not marked as augmented, and dropout is off."""
    model = eqx.tree_at(lambda m: m.network, broken, _Original())
    images = np.zeros((2, *SHAPE), np.uint8)
    bound = bound_of_images(model, images, draws=2, steps=0, batch_size=2, key=quick_key)
    assert np.isfinite(bound.total).all()


def test_batch_size_changes_nothing(order_0, bound: Bound, bound_of_images) -> None:
    """The estimates of 300 images are the same in batches of 128 and of 512."""
    at_once = bound_of_images(order_0, IMAGES, draws=8, steps=0, batch_size=512, key=jax.random.key(0))
    # rounding under a different vectorisation, 1e-16 / sigma_0 in eps_hat
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), at_once, bound)


def test_a_measurement_that_is_stopped_has_the_same_estimates_of_fewer_images(order_0) -> None:
    """A time limit reduces the number of images and leaves their estimates unchanged."""
    how = {"estimator": VariationalBound(draws=2), "batch_size": 128, "key": jax.random.key(0)}
    whole, stopped = (log_likelihood(order_0, IMAGES, **how, seconds=seconds) for seconds in (np.inf, 0.0))
    assert len(stopped.index) == 128
    assert (np.diff(stopped.index) > 0).all()
    np.testing.assert_array_equal(stopped.nats, whole.nats[:, stopped.index])


def test_a_measurement_that_is_stopped_has_seen_images_from_all_over_the_test_set(order_0) -> None:
    """A time limit leaves a random subset of the test set, even if the test set is sorted."""
    images = np.repeat(np.array([1, 2], np.uint8), COUNT // 2).reshape(-1, 1, 1, 1) * np.ones((1, *SHAPE), np.uint8)
    how = {"estimator": VariationalBound(draws=2), "batch_size": 100, "key": jax.random.key(0)}
    stopped = log_likelihood(order_0, images, **how, seconds=0.0)
    assert 30 < (stopped.index >= COUNT // 2).sum() < 70  # 100 without replacement of 150 and 150: 50 +/- 4.1


def test_each_image_counts_once_and_in_order(order_0, bound: Bound) -> None:
    """Every image counts once and in order, without the last batch's padding; the image determines the prior term."""
    x = jax.vmap(order_0.observation.encode)(jnp.asarray(IMAGES))
    expected = jax.vmap(lambda x: prior_loss(order_0, x))(x)
    np.testing.assert_allclose(bound.prior, np.broadcast_to(expected, (2, COUNT)), rtol=1e-12)


def test_every_step_is_visited_once_by_as_many_draws(model_of, quick_key, bound_of_images) -> None:
    """T draws visit each of T steps once, so a loss that depends on t alone is summed exactly."""
    image = np.zeros((2, *SHAPE), np.uint8)
    observation = CategoricalObservation(LEVELS)
    path, x = VariancePreserving(), observation.encode(jnp.asarray(image[0]))

    def misses_by_gamma(z: Array, gamma: Array) -> Array:
        return (z - path.alpha(gamma) * x) / path.sigma(gamma) + gamma  # eps_hat = eps + gamma

    schedule = FixedLinear(gamma_min=-6.0, gamma_max=2.0)
    model = model_of(misses_by_gamma, schedule=schedule, observation=observation, shape=SHAPE)
    steps = 4
    bound = bound_of_images(model, image, draws=2 * steps, steps=steps, batch_size=2, key=quick_key)
    gamma_t = -6 + 8 / steps * np.arange(1, steps + 1)
    expected = 4 / 2 * np.expm1(8 / steps) * (gamma_t**2).sum()  # 4 pixels, T / 2 of a mean over T steps
    np.testing.assert_allclose(bound.diffusion, expected, rtol=1e-12)


class _Marked(AbstractObservation):
    """Encodes and decodes level 7 with the given values; everything else is 0."""

    code: Array
    log_probability: Array
    levels: int = 8

    def encode(self, image):
        return jnp.where(image == 7, self.code, 0.0)

    def log_prob(self, image, z_0, gamma_0, estimate):
        return jnp.where(image == 7, self.log_probability, 0.0).sum()

    def decode(self, z_0, gamma_0, estimate):
        return jnp.zeros(z_0.shape, jnp.uint8)


@pytest.mark.parametrize(
    ("term", "code", "log_probability"),
    [("prior", np.inf, 0.0), ("reconstruction", 0.0, -np.inf), ("diffusion", 1e9, 0.0)],
)
def test_a_term_that_is_not_finite_is_an_error_and_not_a_bound(
    broken: DiffusionModel, quick_key, term: str, code: float, log_probability: float, bound_of_images
) -> None:
    """A term that is not finite raises an error that names the term and the image."""
    images = np.zeros((3, *SHAPE), np.uint8)
    images[1] = 7
    observation = _Marked(jnp.array(code), jnp.array(log_probability))
    model = eqx.tree_at(lambda m: m.observation, broken, observation)
    found = log_likelihood(model, images, estimator=VariationalBound(draws=2), batch_size=3, key=quick_key)
    with pytest.raises(UntrustedError, match=f"the {term} term is not finite, first for image 1 of those measured"):
        _ = found.bits_per_dim
    assert "NOT A LIKELIHOOD" in repr(found)


@pytest.fixture(scope="module")
def broken(model_of) -> DiffusionModel:
    """A network that gives NaN for latents as large as that of code 1e9."""
    return model_of(lambda z, gamma: jnp.where(abs(z) > 1e6, jnp.nan, z), shape=SHAPE)


def test_one_image_has_no_interval(order_0) -> None:
    """A test set of one image, which has no spread, is refused."""
    with pytest.raises(DataError, match="1 image"):
        log_likelihood(order_0, IMAGES[:1], key=jax.random.key(0))
