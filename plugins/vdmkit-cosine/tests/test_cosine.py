# SPDX-License-Identifier: Apache-2.0
"""The cosine schedule keeps its ends, rises, and reaches recipes through its entry point."""

from importlib.metadata import entry_points
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_cosine import Cosine

from vdmkit.plugins import load_plugins
from vdmkit.recipe import load_recipe
from vdmkit.registry import registry


@pytest.mark.parametrize("ends", [(-13.3, 5.0), (-4.0, 9.0)])
def test_ends_are_those_of_the_recipe(ends):
    """Otherwise the prior and reconstruction terms would not be those that the recipe asks for."""
    schedule = Cosine(gamma_min=ends[0], gamma_max=ends[1])
    got = [float(schedule(jnp.float32(t))) for t in (0, 1)]
    # float32 rounding of u near pi/2, where cos(u) = exp(-gamma_max / 2): 1e-7 / exp(-4.5), twice
    np.testing.assert_allclose(got, ends, rtol=0, atol=2e-5)


def test_strictly_increasing():
    """Otherwise the signal-to-noise ratio would rise somewhere and the bound would be none."""
    slopes = jax.vmap(jax.grad(Cosine()))(jnp.linspace(0, 1, 101))
    assert jnp.all(slopes > 0)


def test_angle_is_linear():
    """Halfway in time is halfway in the angle: gamma(1/2) = 0 between opposite ends, the cosine schedule's mark."""
    gamma = Cosine(gamma_min=-6.0, gamma_max=6.0)(jnp.float32(0.5))
    np.testing.assert_allclose(gamma, 0, atol=1e-6)  # a few roundings of float32 at 1


def test_installed_as_a_plugin():
    """The package is found by its entry point alone; nothing in vdmkit names it."""
    assert "vdmkit_cosine" in {entry.value for entry in entry_points(group="vdmkit.plugins")}
    load_plugins()
    assert registry("schedule").get("cosine").target is Cosine


def test_the_recipe_uses_it():
    """The recipe beside the plugin would train with another schedule, or other ends than the default recipe."""
    recipe = load_recipe(Path(__file__).parents[1] / "digits_cosine.toml")
    schedule = recipe.model.schedule.build()
    assert isinstance(schedule, Cosine)
    parent = load_recipe(Path(__file__).parents[3] / "recipes" / "digits.toml").model.schedule.params
    assert (schedule.gamma_min, schedule.gamma_max) == (parent["gamma_min"], parent["gamma_max"])
