# SPDX-License-Identifier: Apache-2.0
"""The schedules have the distributions that they are named after, and reach recipes through their entry point."""

from importlib.metadata import entry_points
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from vdmkit_laplace import Cauchy, Laplace

from vdmkit.conformance import check_schedule
from vdmkit.plugins import load_plugins
from vdmkit.recipes import load_recipe
from vdmkit.registry import registry

SCHEDULES = {"laplace": (Laplace, stats.laplace), "cauchy": (Cauchy, stats.cauchy)}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("params", [{}, {"gamma_min": -4.0, "gamma_max": 9.0, "mean": -1.0, "width": 0.7}])
def test_conforms(name, params):
    """A bound with it would be none."""
    check_schedule(SCHEDULES[name][0](**params))


@pytest.mark.parametrize("name", SCHEDULES)
def test_gamma_is_distributed_as_its_name_says(name):
    """It would be another schedule than the paper's."""
    schedule, distribution = SCHEDULES[name][0](mean=0.5), SCHEDULES[name][1](loc=0.5, scale=2.0)
    t = np.linspace(0, 1, 33)
    with jax.enable_x64(True):
        gamma = jax.vmap(schedule)(jnp.asarray(t))
    low, high = distribution.cdf([schedule.gamma_min, schedule.gamma_max])
    np.testing.assert_allclose(distribution.cdf(gamma), low + (high - low) * t, rtol=1e-9, atol=1e-12)


def test_installed_as_a_plugin():
    """The package is found by its entry point alone; nothing in vdmkit names it."""
    assert "vdmkit_laplace" in {entry.value for entry in entry_points(group="vdmkit.plugins")}
    load_plugins()
    assert registry("schedule").get("laplace").target is Laplace


def test_the_recipe_uses_it():
    """The recipe beside the plugin would train with another schedule, or other ends than the default recipe."""
    recipe = load_recipe(Path(__file__).parents[1] / "digits_laplace.toml")
    schedule = recipe.model.schedule.build()
    assert isinstance(schedule, Laplace)
    parent = load_recipe("digits").model.schedule.params
    assert (schedule.gamma_min, schedule.gamma_max) == (parent["gamma_min"], parent["gamma_max"])
