# SPDX-License-Identifier: Apache-2.0
"""Draws for the difference of two models: shared, unbiased for each model, and concentrated where the two differ."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.decoders import CategoricalObservation
from vdmkit.likelihood import VariationalBound
from vdmkit.likelihood.allocation import ContinuousLoss, cells_between, neyman, variance_of_draw
from vdmkit.likelihood.control_variates import Context
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork
from vdmkit.predictions import Categorical
from vdmkit.schedules import FixedLinear

SHAPE, COUNT = (3, 2, 1), 40
IMAGES = np.random.default_rng(0).choice(4, (COUNT, *SHAPE), p=[0.1, 0.2, 0.2, 0.5]).astype(np.uint8)
BOUND, LOOSE, RUNS = VariationalBound(draws=8), 1e3, 60  # LOOSE in nats: one draw is enough


def alone(gamma_min: float, variance: float, model_of) -> DiffusionModel:
    """Builds the denoiser of x ~ N(0, variance I)."""

    def eps_hat(z, gamma):
        alpha2 = jax.nn.sigmoid(-gamma)
        return jnp.sqrt(1 - alpha2) * z / (variance * alpha2 + 1 - alpha2)

    return model_of(
        eps_hat,
        schedule=FixedLinear(gamma_min=gamma_min, gamma_max=4.0),
        observation=CategoricalObservation(4),
        shape=SHAPE,
    )


@pytest.fixture(scope="module")
def models(model_of):
    """Two models whose schedules start at different gammas."""
    return alone(-5.0, 0.2, model_of), alone(-4.5, 0.3, model_of)


def exact(model: DiffusionModel, gamma_min: float, variance: float) -> np.ndarray:
    """Returns the diffusion loss of each image in nats: closed form in gamma, integrated by Gauss-Legendre."""
    node, weight = np.polynomial.legendre.leggauss(60)  # a smooth function: exact to rounding
    half = (4.0 - gamma_min) / 2
    alpha2 = 1 / (1 + np.exp(gamma_min + half * (1 + node)))
    gain = np.sqrt(1 - alpha2) / (variance * alpha2 + 1 - alpha2)
    x = np.asarray(jax.vmap(model.observation.encode)(jnp.asarray(IMAGES))).reshape(COUNT, -1, 1)
    loss = ((gain * np.sqrt(alpha2) * x) ** 2 + (1 - np.sqrt(1 - alpha2) * gain) ** 2).sum(1)
    return loss @ weight * half / 2


def plans(first: DiffusionModel, second: DiffusionModel):
    return BOUND.plan_pair((first, second), IMAGES, precision=LOOSE, key=jax.random.key(7, impl="rbg"))


@pytest.mark.costly
def test_each_model_keeps_its_own_bound(models):
    """With a shared plan each model's estimates are unbiased for its own bound."""
    index = np.arange(COUNT)
    for model, plan, numbers in zip(models, plans(*models), [(-5.0, 0.2), (-4.5, 0.3)], strict=True):
        found = []
        for seed in range(RUNS):
            how = {"replicate": 0, "key": jax.random.key(seed, impl="rbg")}
            estimates = BOUND(model, jnp.asarray(IMAGES), jnp.asarray(index), plan, **how)
            found.append(estimates.terms["diffusion"])
            assert set(np.asarray(estimates.evaluations)) == {2}  # the draw and the frozen output
        errors = np.stack(found) - exact(model, *numbers)
        z = errors.mean(0) / (errors.std(0, ddof=1) / np.sqrt(RUNS))
        assert abs(z.mean()) < 4 / np.sqrt(COUNT)
        assert np.mean(z**2) < 1 + 5 * np.sqrt(2 / COUNT)  # Student's t with 59 degrees of freedom has variance 1.04


@pytest.mark.costly
def test_a_model_and_itself_have_one_plan(models):
    """A model paired with itself gets two identical plans."""
    one, other = plans(models[0], models[0])
    assert eqx.tree_equal(one, other)


def test_draws_fall_where_models_differ():
    """The shared allocation is within 10% of the least variance of the difference; one model's own is not."""
    cells = cells_between(-8.0, 5.0)
    of_each, of_difference = np.linspace(9, 1, len(cells.rate)), np.linspace(0, 2, len(cells.rate))
    shared, own = neyman(cells, of_difference), neyman(cells, of_each)
    least = (cells.rate * of_difference).sum() ** 2  # Neyman's
    assert (
        least
        < variance_of_draw(cells, of_difference, shared)
        < 1.1 * least
        < variance_of_draw(cells, of_difference, own)
    )


class _Tables(AbstractNetwork):
    """Logits that depend on the whole latent."""

    weights: jax.Array

    def __call__(self, z, gamma, condition, *, key=None):
        return jnp.tensordot(z, self.weights, 3)


@pytest.mark.costly
def test_the_frozen_loss_has_mean_zero():
    """The control variate has mean zero and is not constant."""
    model = DiffusionModel(
        schedule=FixedLinear(gamma_min=-5.0, gamma_max=4.0),
        network=_Tables(jax.random.normal(jax.random.key(0, impl="rbg"), (*SHAPE, *SHAPE[:2], 1, 4))),
        prediction=Categorical(jnp.ones((*SHAPE, 4), jnp.int32)),
        shape=SHAPE,
        levels=4,
    )
    x, context = model.observation.encode(jnp.asarray(IMAGES[0])), Context(ContinuousLoss(), jnp.asarray(-4.0))
    output = context.output(model, x, key=jax.random.key(1, impl="rbg"))

    @jax.jit
    @jax.vmap
    def control(key):
        key_eps, key = jax.random.split(key)
        return context.control(model, output, x, jnp.asarray(-2.0), jax.random.normal(key_eps, x.shape), key=key)

    values = np.asarray(control(jax.random.split(jax.random.key(2, impl="rbg"), 1000)))
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert values.std() > 0.1  # not constant
