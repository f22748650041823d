# SPDX-License-Identifier: Apache-2.0
"""Kingma et al. 2021, section 5.1: one network is the same model on any path, for any prediction."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import RecipeError
from vdmkit.losses import Elbo, LowDiscrepancy, Objective
from vdmkit.losses.training_loss import Draws
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork
from vdmkit.predictions import AbstractDirection, Translated
from vdmkit.registry import Choice, registry
from vdmkit.schedules import FixedLinear

SHAPE, LEVELS = (3, 2, 1), 5
PATHS = sorted(registry("path").components)
DIRECTIONS = sorted(
    name
    for name, component in registry("prediction").components.items()
    if isinstance(component.target, type)
    and issubclass(component.target, AbstractDirection)
    and component.build({}).outputs == 1
)
OF_PATH = ("score", "unit_velocity")
"""Directions, or inputs of the network, that depend on the path."""


class _Bent(AbstractNetwork):
    """A nonlinear function of z that differs between gammas."""

    def __call__(self, z, gamma, condition, *, key=None):
        return (jnp.tanh(2 * z + gamma / 5) + z / 2)[..., None]


class _BentBesideRange(AbstractNetwork):
    """`_Bent` with a second output for the variance."""

    def __call__(self, z, gamma, condition, *, key=None):
        return jnp.concatenate([_Bent()(z, gamma, condition), jnp.full((*z.shape, 1), 7.0)], axis=-1)


def model(path: str, prediction: str, network: AbstractNetwork) -> DiffusionModel:
    schedule = FixedLinear(gamma_min=-2.0, gamma_max=4.0)  # at -2 the paths differ: alpha_0 is 0.94 or 1
    parts = {
        "path": registry("path").get(path).build({}),
        "prediction": registry("prediction").get(prediction).build({}),
    }
    return DiffusionModel(schedule=schedule, network=network, levels=LEVELS, shape=SHAPE, **parts)


@eqx.filter_jit
def bound(model: DiffusionModel, images, draws: Draws):
    return Objective(LowDiscrepancy(), Elbo(), 0)(model, images, {}, draws).total


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, LEVELS, (4, *SHAPE)).astype(np.uint8))
    eps_0, eps = jnp.asarray(rng.normal(size=(2, *images.shape)))
    return images, Draws(
        eps_0, eps, jnp.array([0.1, 0.4, 0.6, 0.95]), jnp.ones(4), jax.random.split(jax.random.key(0), 4)
    )


def translated(trained: tuple[str, str], read: tuple[str, str], outputs: int = 1) -> Translated:
    choices = {
        "network": Choice("network", "none"),
        "trained_on": Choice("path", trained[0]),
        "trained_as": Choice("prediction", trained[1]),
        "read_on": Choice("path", read[0]),
        "read_as": Choice("prediction", read[1]),
    }
    built = Translated(SHAPE, outputs, (-2.0, 4.0), 0, jax.random.key(0), **choices)
    return eqx.tree_at(lambda n: n.inner, built, _Bent())


@pytest.mark.system
@pytest.mark.parametrize("prediction", DIRECTIONS)
def test_one_network_has_one_bound_on_all_paths(batch, prediction: str) -> None:
    """A network has the same bound on all paths with the same ends."""
    first = bound(model(PATHS[0], prediction, _Bent()), *batch)
    for path in PATHS[1:]:
        network = _Bent()
        if prediction in OF_PATH:
            network = translated((PATHS[0], prediction), (path, prediction))
        np.testing.assert_allclose(bound(model(path, prediction, network), *batch), first, rtol=1e-10)


@pytest.mark.costly
@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(DIRECTIONS, 2)))
def test_a_translated_network_has_the_same_bound(batch, before: str, after: str) -> None:
    """Conversion to a different prediction and path leaves the bound unchanged."""
    trained, read = (PATHS[0], before), (PATHS[-1], after)
    first = bound(model(*trained, _Bent()), *batch)
    second = bound(model(*read, translated(trained, read)), *batch)
    np.testing.assert_allclose(second, first, rtol=1e-9)
    assert abs(bound(model(*read, _Bent()), *batch) - first).max() > 1e-3  # the translation matters


def test_learned_variances_are_not_translated(batch) -> None:
    """Conversion of an iDDPM network uses its eps output only, and leaves the bound unchanged."""
    trained, read = (PATHS[0], "eps_and_range"), (PATHS[-1], "v")
    network = translated(trained, read)
    network = eqx.tree_at(lambda n: n.inner, network, _BentBesideRange())
    expected = bound(model(PATHS[0], "eps", _Bent()), *batch)
    np.testing.assert_allclose(bound(model(*trained, _BentBesideRange()), *batch), expected, rtol=1e-9)
    np.testing.assert_allclose(bound(model(*read, network), *batch), expected, rtol=1e-9)


def test_learned_variances_go_to_every_path() -> None:
    """Conversion to a different path keeps the learned variances, and refuses a network without them."""
    y, gamma = jnp.linspace(-2, 2, 6).reshape(SHAPE), jnp.array(0.7)
    trained, read = (PATHS[0], "eps_and_range"), (PATHS[-1], "eps_and_range")
    network = eqx.tree_at(lambda n: n.inner, translated(trained, read, 2), _BentBesideRange())
    before, after = model(*trained, _BentBesideRange()), model(*read, network)
    first, second = before.estimate(y, gamma), after.estimate(y, gamma)
    np.testing.assert_allclose(second.eps_hat, first.eps_hat, rtol=1e-12)
    np.testing.assert_array_equal(second.variance_share, first.variance_share)
    with pytest.raises(RecipeError, match=r"the network gives 1 value per pixel and channel, but .* needs 2"):
        translated((PATHS[0], "eps"), read, 2)


def test_levels_are_no_direction() -> None:
    """Predictions over levels, which no direction can represent, are refused."""
    with pytest.raises(RecipeError, match="prediction categorical is not a direction"):
        translated((PATHS[0], "categorical"), (PATHS[0], "eps"))
