# SPDX-License-Identifier: Apache-2.0
"""The sampler is one, and is what its paper says."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_ipndm import WEIGHTS, Ipndm

from vdmkit.conformance import check_sampler
from vdmkit.predictions import Estimate
from vdmkit.recipes import load_recipe
from vdmkit.sampling import Euler
from vdmkit.sampling.sampler import no_history

SHAPE = (1, 1, 1)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_conforms(order):
    """A chain with it would not end at what the denoiser knows."""
    check_sampler(Ipndm(order=order))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_mixture_continues_polynomials(order):
    """A weight would be wrong: of a polynomial of degree order - 1 a step's mean is exact (Adams-Bashforth)."""
    steps = -np.arange(4.0)
    for degree in range(order):
        found = np.dot(WEIGHTS[order - 1], steps**degree)
        np.testing.assert_allclose(found, 1 / (degree + 1), rtol=1e-12)  # the mean of u^degree on [0, 1]


def test_the_first_step_is_eulers():
    """It would take eps_hat of steps that there were not."""
    denoise = lambda y, gamma: Estimate(y / 2, y / 2 * jnp.exp(-gamma / 2))  # noqa: E731
    arguments = (denoise, jnp.ones(SHAPE), jnp.asarray(2.0), jnp.asarray(0.0), no_history(SHAPE, jnp.asarray(3)))
    none = jnp.zeros((0, *SHAPE))
    ends = [jax.jit(lambda s=sampler: s.step(*arguments, none)[0])() for sampler in (Ipndm(), Euler())]
    np.testing.assert_allclose(*ends, rtol=1e-6)


def test_the_recipe_uses_it():
    """The recipe beside the plugin would sample otherwise."""
    recipe = load_recipe(Path(__file__).parents[1] / "digits_ipndm.toml")
    assert (recipe.sampling.sampler.name, recipe.sampling.steps) == ("ipndm", 10)
