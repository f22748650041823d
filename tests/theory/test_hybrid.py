# SPDX-License-Identifier: Apache-2.0
"""iDDPM's L_hybrid (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 16) and its gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.decoders import DiscretisedGaussian
from vdmkit.errors import RecipeError
from vdmkit.losses import Hybrid, Objective, eps_error, reconstruction_loss
from vdmkit.losses.discrete_time import step_loss
from vdmkit.predictions import EpsAndRange
from vdmkit.recipes import load_recipe
from vdmkit.recipes.checks import check_objective
from vdmkit.reverse import LearnedRange
from vdmkit.schedules import FixedLinear

STEPS, SHARE = 10, 0.02
IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 5, (3, 4, 1, 1)), jnp.uint8)


def output(parameters, z, gamma):
    """Returns eps scaled by the first parameter, and the variance's share scaled by the second."""
    return jnp.stack([parameters[0] * z, parameters[1] * jnp.tanh(gamma + z)], axis=-1)


@pytest.fixture
def model(model_of):
    return model_of(
        jax.tree_util.Partial(output, jnp.asarray([0.7, 0.4])),
        schedule=FixedLinear(gamma_min=-4.0, gamma_max=4.0),
        prediction=EpsAndRange(),
        observation=DiscretisedGaussian(5, sd=0.1, learned=True),
    )


@pytest.fixture
def objective():
    return Objective(weighting=Hybrid(share=SHARE), steps=STEPS, kernel=LearnedRange())


def parts(model, objective, draws):
    """Returns each image's |eps - eps_hat|^2, the step's KL and the reconstruction term, the latter two in nats."""
    noise = objective.noise_levels(model.schedule, draws)

    def one(image, noise, draws):
        x = model.observation.encode(image)
        ends = noise.gamma, noise.gamma_s
        kl = step_loss(model, objective.kernel, x, draws.eps, *ends, {}, key=draws.keys)
        return eps_error(model, x, noise.gamma, draws.eps, {}), kl, reconstruction_loss(model, image, draws.eps_0)

    return jax.vmap(one)(IMAGES, noise, draws)


@pytest.mark.costly
def test_it_is_the_simple_loss_and_a_share_of_the_bound_in_bits(model, objective, quick_key) -> None:
    """The loss is the simple loss plus lambda times the T-step bound in bits, decoder included."""
    draws = objective.draw(IMAGES.shape, key=quick_key)
    found = objective(model, IMAGES, {}, draws)
    simple, kl, decoder = parts(model, objective, draws)
    np.testing.assert_allclose(found.diffusion, simple + SHARE * STEPS * kl / np.log(2), rtol=1e-12)
    np.testing.assert_allclose(found.reconstruction, SHARE * decoder / np.log(2), rtol=1e-12)


@pytest.mark.costly
def test_the_bound_trains_variances_alone(model, objective, quick_key) -> None:
    """The bound's gradient reaches the variances only; eps_hat is trained by the simple loss."""
    draws = objective.draw(IMAGES.shape, key=quick_key)
    at = lambda model: model.network.formula.args[0]  # noqa: E731

    def gradient(loss) -> np.ndarray:
        moved = lambda parameters: loss(eqx.tree_at(at, model, parameters))  # noqa: E731
        return np.asarray(jax.grad(moved)(at(model)))

    def weighted(model) -> jax.Array:
        bound = objective(model, IMAGES, {}, draws)
        return (bound.diffusion + bound.reconstruction).sum()

    found = gradient(weighted)
    simple = gradient(lambda model: parts(model, objective, draws)[0].sum())
    bound = gradient(
        lambda model: (STEPS * parts(model, objective, draws)[1] + parts(model, objective, draws)[2]).sum()
    )
    np.testing.assert_allclose(found, [simple[0], SHARE / np.log(2) * bound[1]], rtol=1e-12)


def test_it_needs_steps() -> None:
    """In continuous time, which has no variances to learn, the hybrid weighting is refused."""
    recipe = load_recipe("digits/iddpm", overrides=["objective.steps=0", 'objective.kernel="gaussian"'])
    with pytest.raises(RecipeError, match="weighting hybrid: variances belong to steps"):
        check_objective(recipe)
