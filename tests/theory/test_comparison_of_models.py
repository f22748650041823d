# SPDX-License-Identifier: Apache-2.0
"""`vdmkit.compare` on small trained models: averaged against raw parameters, and two seeds.

With correct 95% intervals, fewer than 90 of 100 contain the true value in 1.1% of such tests; the keys are fixed.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vdmkit
from vdmkit.likelihood import VariationalBound
from vdmkit.likelihood.comparison import plan_pair
from vdmkit.losses import Objective
from vdmkit.networks import AbstractNetwork
from vdmkit.predictions import Eps
from vdmkit.schedules import LearnedLinear
from vdmkit.toy_data import LevelMixture
from vdmkit.training import TrainState, Update
from vdmkit.training.step import initial_state, train_steps

SHAPE, LEVELS, STEPS = (4, 4, 1), 17, 3000
PAIRS = pytest.mark.parametrize("pair", ["averaged and raw", "seeds"])
pytestmark = [pytest.mark.slow, pytest.mark.statistical]


class _Mlp(AbstractNetwork):
    """Three dense layers on the whole image and gamma."""

    layers: list[eqx.nn.Linear]

    def __init__(self, key):
        sizes, keys = (17, 64, 64, 16), jax.random.split(key, 3)
        self.layers = [eqx.nn.Linear(*ends, key=k) for *ends, k in zip(sizes[:-1], sizes[1:], keys, strict=True)]

    def __call__(self, z, gamma, condition, *, key=None):
        h = jnp.append(z, gamma / 5)
        for layer in self.layers[:-1]:
            h = jax.nn.silu(layer(h))
        return self.layers[-1](h).reshape(*z.shape, 1)


@pytest.fixture(scope="module")
def distribution() -> LevelMixture:
    """A mixture of three kinds of images with dependent pixels."""
    rng = np.random.default_rng(0)
    means, sds = rng.uniform(-0.8, 0.8, (3, 16)), rng.uniform(0.1, 0.4, (3, 16))
    return LevelMixture(SHAPE, LEVELS, (0.5, 0.3, 0.2), tuple(map(tuple, means)), tuple(map(tuple, sds)))


@pytest.fixture(scope="module")
def pairs(distribution):
    """Two pairs of models trained for 3,000 updates, by name."""
    first, second = (_trained(distribution, seed) for seed in (1, 2))
    return {"averaged and raw": (first.ema_model, first.model), "seeds": (first.ema_model, second.ema_model)}


def _trained(distribution: LevelMixture, seed: int) -> TrainState:
    model = vdmkit.DiffusionModel(
        schedule=LearnedLinear(gamma_min=-8.0, gamma_max=5.0),
        network=_Mlp(jax.random.key(seed)),
        prediction=Eps(),
        shape=SHAPE,
        levels=LEVELS,
    )
    update = Update(optax.adam(2e-3), 0.99, False)
    images = distribution.sample(STEPS * 64, seed).reshape(STEPS, 64, *SHAPE)
    batches = {"image": jnp.asarray(images), "augmented": jnp.zeros((STEPS, 64))}
    state = initial_state(model, update.optimizer, Objective())
    return train_steps((update, batches, jax.random.key(seed)), state)[0]


@pytest.fixture(scope="module")
def measured(distribution):
    """`measured(model, draws, seed, plan)`: the likelihoods of 200 test images, with a plan if one is given."""
    images = distribution.sample(200, 99)

    def measured(model, draws: int, seed: int, plan=None):
        estimator, key = VariationalBound(draws=draws), jax.random.key(seed, impl="rbg")
        return vdmkit.log_likelihood(model, images, key=key, estimator=estimator, batch_size=200, plan=plan)

    return measured


@pytest.fixture(scope="module")
def paired(distribution, measured):
    """`paired(first, second, draws, seed)`: their likelihoods as `vdmkit compare` measures them."""
    images = distribution.sample(200, 99)

    def paired(first, second, draws: int, seed: int):
        how = {"key": jax.random.key(seed, impl="rbg"), "estimator": VariationalBound(draws=draws)}
        one, other = plan_pair(first, second, images, **how)
        return measured(first, draws, seed, one), measured(second, draws, seed, other)

    return paired


@PAIRS
@pytest.mark.parametrize("draws", [4, 16])  # without a pilot and with one
def test_intervals_of_a_difference_hold_a_longer_measurement(pairs, measured, paired, pair, draws):
    """Monte Carlo intervals of a difference under common noise cover the value of a longer measurement."""
    first, second = pairs[pair]
    longer = vdmkit.compare(*(measured(model, 10 * draws, 1000) for model in (first, second))).value
    found = [vdmkit.compare(*paired(first, second, draws, seed)) for seed in range(100)]
    assert sum(abs(one.value - longer) <= one.half_width_monte_carlo for one in found) >= 90


@PAIRS
@pytest.mark.parametrize("draws", [4, 16])
def test_common_noise_narrows_the_interval(pairs, measured, paired, pair, draws):
    """Sharing draws between two models makes the interval of their difference less than a third as wide."""
    first, second = pairs[pair]
    together = vdmkit.compare(*paired(first, second, draws, 0)).half_width_monte_carlo
    alone = vdmkit.compare(measured(first, draws, 0), measured(second, draws, 1)).half_width_monte_carlo
    assert 0 < together < alone / 3


def test_a_model_equals_itself(pairs, paired):
    """The difference between a model and itself is exactly zero, with a half-width of zero."""
    model = pairs["seeds"][0]
    found = vdmkit.compare(*paired(model, model, 16, 0))
    assert (found.value, found.half_width) == (0.0, 0.0)
