# SPDX-License-Identifier: Apache-2.0
"""Times that adapt to the loss: their density, and its effect on the estimate."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.losses import DiscreteGrid, LossAdaptive, LowDiscrepancy


def _loss(t):
    """A loss with mean 1 and coefficient of variation 1.03 over t, nearly constant in each of 100 bins."""
    return 0.2 + 4 * t**4


def _learned(times, batches: int = 400):
    """Returns the times after batches of 64 draws of this loss."""
    keys = jax.random.split(jax.random.key(0), batches)

    @jax.jit
    def learn(times, key):
        t, _ = times(64, key=key)
        return times.after(t, _loss(t))

    for key in keys:
        times = learn(times, key)
    return times


def test_without_losses_times_are_even() -> None:
    """Before any loss is recorded times are those of LowDiscrepancy, with weight 1."""
    times, even = (kind(64, key=jax.random.key(1)) for kind in (LossAdaptive(), LowDiscrepancy()))
    np.testing.assert_allclose(times[0], even[0], rtol=0, atol=1e-12)  # rounding of a sum of 100 terms
    np.testing.assert_allclose(times[1], 1, rtol=1e-12)


@pytest.mark.statistical
def test_the_density_is_that_of_the_loss() -> None:
    """The density is 0.1 + 0.9 loss / mean in every bin."""
    density = _learned(LossAdaptive()).density()
    middle = (jnp.arange(100) + 0.5) / 100
    np.testing.assert_allclose(density.mean(), 1, rtol=1e-12)
    # a bin has 50 to 900 losses and one pseudo-loss at the mean, which shifts it by 2% of the distance, at most 2.8
    expected = 0.1 + 0.9 * _loss(middle) / _loss(middle).mean()
    np.testing.assert_allclose(density, expected, rtol=0.02, atol=0.02)


@pytest.mark.statistical
def test_the_weighted_loss_no_longer_varies() -> None:
    """The weight is the inverse of the density, so that the weighted loss varies 10 times less."""
    t, weight = _learned(LossAdaptive(uniform=0.01))(4096, key=jax.random.key(2))
    weighted = weight * _loss(t)
    np.testing.assert_allclose(weighted.mean(), 1, atol=0.005)
    assert weighted.std() < 0.1 * _loss(jnp.linspace(0, 1, 4096)).std()


@pytest.mark.statistical
def test_what_is_old_is_forgotten() -> None:
    """Old losses decay: after 400 batches 0.9^400 of them is left."""
    first = _learned(LossAdaptive(decay=0.9))
    t, _ = LowDiscrepancy()(64, key=jax.random.key(3))
    times = first
    for _ in range(400):
        times = times.after(t, jnp.ones(64))
    met = jnp.unique((t * 100).astype(int))
    np.testing.assert_allclose(times.density()[met], 1, atol=1e-6)


def test_times_stay_below_one() -> None:
    """In float32 times stay in [0, 1) and weights are finite."""
    times = eqx.tree_at(lambda times: (times.total, times.count), LossAdaptive(), (jnp.arange(100.0), jnp.ones(100)))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), times)
    t, weight = narrow(4096, key=jax.random.key(4))
    assert float(t.min()) >= 0
    assert float(t.max()) < 1
    assert bool(jnp.isfinite(weight).all())


def test_a_discrete_grid_has_midpoints() -> None:
    """Times of the discrete grid are midpoints of steps, with weight 1."""
    t, weight = DiscreteGrid(steps=5)(500, key=jax.random.key(5))
    np.testing.assert_allclose(np.unique(np.round(t, 12)), [0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_array_equal(weight, 1)
