# SPDX-License-Identifier: Apache-2.0
"""Every public component is a class that can be constructed with keyword arguments, without a recipe."""

import importlib
import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_estimator
from vdmkit.data import MixtureData
from vdmkit.errors import RecipeError
from vdmkit.likelihood import ImportanceWeighted, ProbabilityFlow, VariationalBound
from vdmkit.losses import Elbo, LowDiscrepancy, Objective
from vdmkit.predictions import V
from vdmkit.process import UniformInGamma
from vdmkit.registry import Choice, registry
from vdmkit.reverse import AbstractGaussianKernel, GaussianKernel, MixtureKernel
from vdmkit.sampling import Ancestral, Heun
from vdmkit.schedules import FixedLinear, LearnedLinear, Pinned

KINDS = ("schedule", "path", "prediction", "weighting", "time_sampler", "grid", "kernel", "sampler", "estimator")
KEY = jax.random.key(0)
# Arguments without a sensible default; no other component requires any.
REQUIRED: dict[tuple[str, str], dict[str, Any]] = {
    # has random initial parameters
    ("schedule", "learned_monotone"): {"key": KEY},
    ("schedule", "pinned"): {"interior": FixedLinear()},
    # depend on the data
    ("prediction", "categorical"): {"level_counts": jnp.ones((2, 2, 1, 5), int)},
    ("prediction", "lattice"): {"levels": 5},
    ("prediction", "exact"): {"distribution": MixtureData().distribution},
    ("prediction", "exact_given_label"): {"distribution": MixtureData().distribution},
    # are the result of measurements
    ("grid", "gammas"): {"gammas": (-5.0, 0.0, 5.0)},
    ("kernel", "optimal_variance"): {"gammas": (-5.0, 5.0), "errors": (0.1, 0.5)},
}


def components() -> list[Any]:
    """Returns all components of vdmkit of these kinds."""
    every = [one for kind in KINDS for one in registry(kind).components.values()]
    return [pytest.param(one, id=f"{one.kind}-{one.name}") for one in every if one.origin == "vdmkit"]


@pytest.mark.parametrize("component", components())
def test_keyword_arguments_construct_a_public_class(component) -> None:
    """Every component is a public class that can be constructed with keyword arguments."""
    package = importlib.import_module(".".join(component.target.__module__.split(".")[:2]))
    public = getattr(package, component.target.__name__)
    assert public is component.target
    assert public.__name__ in package.__all__
    given = REQUIRED.get((component.kind, component.name), {})
    assert isinstance(public(**given), registry(component.kind).interface)


@pytest.mark.parametrize("component", components())
def test_a_constructor_without_arguments_is_the_recipe_of_the_name_alone(component) -> None:
    """A component has the same defaults in Python and in a recipe."""
    given = REQUIRED.get((component.kind, component.name), {})
    context = {name: given[name] for name in component.injected if name in given}
    context |= {
        "key": KEY,
        "trained_steps": 0,
        "trained_kernel": GaussianKernel(),
        "trained_grid": Choice("grid", "uniform"),
    }
    params = {name: given[name] for name in component.parameters if name in given}
    assert eqx.tree_equal(component.target(**given), component.build(context, **params))


@pytest.mark.parametrize("component", [case for case in components() if case.id not in map("-".join, REQUIRED)])
def test_nothing_else_is_required(component) -> None:
    """Constructors have no required arguments besides those listed in `REQUIRED`."""
    parameters = inspect.signature(component.target).parameters.values()
    assert [one.name for one in parameters if one.default is one.empty] == []


def test_what_researchers_write() -> None:
    """The constructors of the API examples apply the arguments they are given."""
    schedule = LearnedLinear(gamma_min=-8.0, gamma_max=5.0)
    assert (schedule.gamma_min, float(schedule(jnp.ones(())))) == (-8.0, 5.0)
    assert V().outputs == 1
    assert (Heun().churn, Heun(churn=2.0).churn) == (0.0, 2.0)
    assert float(ProbabilityFlow(rtol=1e-4).integrator.rtol) == pytest.approx(1e-4)
    objective = Objective()
    assert (type(objective.time_sampler), type(objective.weighting), objective.steps) == (LowDiscrepancy, Elbo, 0)
    assert (VariationalBound().steps, ImportanceWeighted().steps) == (0, 100)


def test_parts_are_objects_or_choices() -> None:
    """A nested component may be given as an object or as a `Choice`, with the same result and description."""
    objects = {"kernel": MixtureKernel(draws=4), "grid": UniformInGamma()}
    choices = {"kernel": Choice("kernel", "mixture", {"draws": 4}), "grid": Choice("grid", "gamma")}
    for estimator in (VariationalBound, ImportanceWeighted):
        of_objects, of_choices = (estimator(steps=10, **parts) for parts in (objects, choices))
        assert eqx.tree_equal(of_objects, of_choices)
        assert of_objects.describe(17).endswith("T = 10 steps, kernel mixture (draws = 4), grid gamma")
    assert eqx.tree_equal(Ancestral(kernel=objects["kernel"]), Ancestral(kernel=choices["kernel"]))
    interior = Choice("schedule", "fixed_linear", {"gamma_min": -3.0})
    assert eqx.tree_equal(Pinned(interior=FixedLinear(gamma_min=-3.0)), Pinned(interior=interior))


def test_a_part_of_ones_own_is_named_by_its_class() -> None:
    """An unregistered kernel can be used, and the description names its class."""

    class Mine(AbstractGaussianKernel):
        noise_draws: int = 1

        def error(self, gamma):
            return jnp.zeros_like(gamma)

    assert VariationalBound(steps=3, kernel=Mine()).describe(17).endswith("kernel Mine, grid uniform")


def test_a_shape_that_is_drawn_needs_a_key() -> None:
    """A pinned schedule with random initial parameters requires a key."""
    with pytest.raises(RecipeError, match="interior learned_monotone starts from random parameters: give a key"):
        Pinned()
    assert Pinned(KEY).learned_ends is not None


@pytest.mark.costly
@pytest.mark.parametrize("levels", [0, 5])
def test_the_flow_reads_the_levels_from_the_model(levels: int) -> None:
    """`ProbabilityFlow` dequantizes exactly when the model has discrete levels."""
    words = ProbabilityFlow().describe(levels)
    assert ("truncated normal dequantisation" in words, "at the data" in words) == (levels > 0, levels == 0)
    check_estimator(ProbabilityFlow(rtol=1e-3, atol=1e-3), levels)
