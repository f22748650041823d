# SPDX-License-Identifier: Apache-2.0
"""Models on paths with the same SNR are equivalent (PAPER 7.2): z' = c z with c(gamma) > 0 changes no number."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from vdmkit.decoders import CategoricalObservation
from vdmkit.losses import Elbo, LowDiscrepancy, Objective
from vdmkit.losses.training_loss import Draws
from vdmkit.model import DiffusionModel
from vdmkit.predictions import AbstractPrediction, Categorical, Eps
from vdmkit.process import UniformInTime
from vdmkit.sampling import Ancestral
from vdmkit.sampling.sampler import draw
from vdmkit.schedules import FixedLinear

SHAPE, LEVELS = (3, 2, 1), 5
Pair = Callable[[AbstractPrediction], tuple[DiffusionModel, DiffusionModel]]


@pytest.fixture
def pair(other_path, model_of) -> Pair:
    """The same denoiser on the variance-preserving path and, rescaled, on another."""

    def output(z: Array, gamma: Array, outputs: int) -> Array:
        return jnp.tanh(z[..., None] * jnp.arange(1, outputs + 1) + gamma / 5)

    def scale(gamma: Array) -> Array:
        return jnp.hypot(other_path.alpha(gamma), other_path.sigma(gamma))

    def build(prediction: AbstractPrediction) -> tuple[DiffusionModel, DiffusionModel]:
        k = prediction.outputs
        # gamma_0 = -2, where the paths differ: alpha_0 is 0.94 here and 1 there
        parts = {"schedule": FixedLinear(gamma_min=-2.0), "prediction": prediction, "shape": SHAPE}
        parts["observation"] = CategoricalObservation(LEVELS)
        here = model_of(lambda z, gamma: output(z, gamma, k), **parts)
        return here, model_of(lambda z, gamma: output(z / scale(gamma), gamma, k), path=other_path, **parts)

    return build


@pytest.mark.parametrize(("name", "steps"), [("eps", 7), ("categorical", 0)])
def test_bound_is_the_same(pair: Pair, name: str, steps: int) -> None:
    """Every term of the bound is invariant to the scaling of z."""
    prediction = Eps() if name == "eps" else Categorical(jnp.ones((*SHAPE, LEVELS), int))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, LEVELS, (4, *SHAPE)).astype(np.uint8))
    eps_0, eps = jnp.asarray(rng.normal(size=(2, *images.shape)))
    draws = Draws(eps_0, eps, jnp.array([1, 3, 5, 7]) / 7, jnp.ones(4), jax.random.split(jax.random.key(0), 4))
    objective = eqx.filter_jit(Objective(LowDiscrepancy(), Elbo(), steps))
    here, there = (objective(model, images, {}, draws) for model in pair(prediction))
    for term in ("prior", "reconstruction", "diffusion"):
        np.testing.assert_allclose(
            getattr(there, term), getattr(here, term), rtol=1e-12
        )  # sigma_0 = 0.3: nothing cancels


@pytest.mark.costly
def test_samples_are_the_same(pair: Pair, quick_key) -> None:
    """Samples are invariant to the scaling of z: the same noise gives the same images."""
    here, there = (
        draw(model, Ancestral(), UniformInTime()(model.schedule, 10), 8, key=quick_key) for model in pair(Eps())
    )
    np.testing.assert_array_equal(there, here)
    assert len(np.unique(here)) == LEVELS  # the test is not trivial: all levels occur
