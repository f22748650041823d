# SPDX-License-Identifier: Apache-2.0
"""Times of a batch: marginally uniform, jointly stratified, and rounded to the ends of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vdmkit.losses import Elbo, LowDiscrepancy, Objective, Uniform, bits_per_dim
from vdmkit.losses.bound import step_end

REPEATS = 4096
KEYS = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))


def _many(times, n: int):
    """Draws REPEATS batches of n times."""
    return jax.vmap(lambda key: times(n, key=key)[0])(KEYS(jnp.arange(REPEATS)))


@pytest.mark.parametrize("times", [Uniform(), LowDiscrepancy()], ids=["uniform", "low_discrepancy"])
def test_each_time_is_uniform(times) -> None:
    """The time of every image in a batch is uniform on [0, 1)."""
    t = _many(times, 5)
    assert t.min() >= 0
    assert t.max() < 1
    # Kolmogorov-Smirnov at 1e-5 for each of 5 places: false alarm 5e-5
    assert all(stats.kstest(t[:, i], "uniform").pvalue > 1e-5 for i in range(5))


@pytest.mark.parametrize("n", [1, 49, 98, 128])
def test_low_discrepancy_has_one_time_in_each_nth_of_the_unit_interval(n: int) -> None:
    """Each nth of [0, 1) has one time, also for n = 49 and 98, where the authors' arange(0, 1, 1/n) has n + 1."""
    t, weight = LowDiscrepancy()(n, key=jax.random.key(1))
    assert len(t) == n
    np.testing.assert_array_equal(jnp.sort((t * n).astype(int)), np.arange(n))
    np.testing.assert_array_equal(weight, 1)


def test_low_discrepancy_estimate_is_unbiased_and_varies_16_times_less(gaussian, four_points, losses) -> None:
    """Stratified times leave the bound of Gaussian data unbiased and reduce its spread as in PAPER section 9."""
    x, eps = four_points(0.25)
    exact = 5.956015 / np.log(2)  # PAPER 19.2
    spread = {}
    for times in (Uniform(), LowDiscrepancy()):
        t = _many(times, 128)
        loss = bits_per_dim(losses(gaussian(0.25), x, eps, t.ravel()), 4).reshape(t.shape).mean(1)
        spread[type(times)] = loss.std()
        # 4 standard errors: false alarm 6e-5
        np.testing.assert_allclose(loss.mean(), exact, rtol=0, atol=4 * loss.std() / np.sqrt(REPEATS))
    # The standard deviation of a standard deviation is sqrt((kurtosis - 1) / 4n): 1.1% for independent times
    # (kurtosis 3), 0.7% for even ones (1.8: the estimate is linear in one uniform draw). Four, and the last decimal.
    np.testing.assert_allclose(spread[Uniform], 0.484, rtol=0.044, atol=5e-4)
    np.testing.assert_allclose(spread[LowDiscrepancy], 0.0296, rtol=0.028, atol=5e-5)


@pytest.mark.parametrize("steps", [1, 3, 10, 1000])
def test_times_round_up_to_the_end_of_their_step(steps: int) -> None:
    """Times are rounded up to the end of their step, and t = 0 belongs to the first step."""
    inside = (jnp.arange(steps)[:, None] + jnp.array([0.001, 0.5, 0.999])) / steps
    ends = (np.arange(steps) + 1) / steps
    # XLA divides by multiplying with 1 / T: one rounding more
    np.testing.assert_allclose(step_end(inside, steps), np.broadcast_to(ends[:, None], inside.shape), rtol=3e-16)
    np.testing.assert_allclose(step_end(jnp.zeros(()), steps), ends[0], rtol=3e-16)


def test_draws_of_a_batch_end_steps_and_are_standard_normal(quick_key) -> None:
    """The objective draws ends of steps, and two uncorrelated standard normal noises."""
    draws = Objective(LowDiscrepancy(), Elbo(), 7).draw((7, 20, 20, 1), key=quick_key)
    np.testing.assert_allclose(jnp.sort(draws.t), np.arange(1, 8) / 7, rtol=3e-16)
    eps_0, eps = np.asarray(draws.eps_0).ravel(), np.asarray(draws.eps).ravel()
    assert all(stats.kstest(noise, "norm").pvalue > 1e-5 for noise in (eps_0, eps))  # false alarm 2e-5
    np.testing.assert_allclose(np.corrcoef(eps_0, eps)[0, 1], 0, atol=4 / np.sqrt(eps.size))  # 4 standard errors, 6e-5


@pytest.mark.costly
def test_noise_and_times_are_independent() -> None:
    """The noises and times of all images are uncorrelated."""
    draws = jax.vmap(lambda key: Objective(Uniform(), Elbo(), 0).draw((2, 1, 1, 1), key=key))(KEYS(jnp.arange(REPEATS)))
    columns = [leaf.reshape(REPEATS, 2) for leaf in (draws.eps_0, draws.eps, draws.t)]
    correlation = np.corrcoef(np.concatenate(columns, axis=1), rowvar=False)
    # 5 standard errors, 15 pairs: false alarm 1e-5
    np.testing.assert_allclose(correlation, np.eye(6), rtol=0, atol=5 / np.sqrt(REPEATS))


def test_continuous_times_stay_as_they_are() -> None:
    """With 0 steps times are not rounded."""
    t = jnp.linspace(0, 1, 7)
    np.testing.assert_array_equal(step_end(t, 0), t)
