# SPDX-License-Identifier: Apache-2.0
"""A schedule that minimises the variance: its gradient, what it leaves unchanged, and its optimum on an oracle.

Data are d independent x ~ N(0, s^2) and the denoiser is exact. Then eps - eps_hat has d independent components of
variance v = sigmoid(log s^2 - gamma), so that with L in bits/dim

E[L^2] = (d^2 + 2 d) / (2 d ln 2)^2 int gamma'(t)^2 v^2 dt, which is least where gamma'(t) = (int v dgamma) / v.
"""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jaxtyping import Array
from scipy.special import expit

from vdmkit.decoders import GaussianObservation
from vdmkit.errors import RecipeError
from vdmkit.losses import Elbo, LowDiscrepancy, Objective, Uniform, bits_per_dim
from vdmkit.losses.training_loss import Draws
from vdmkit.model import DiffusionModel
from vdmkit.recipes import load_recipe
from vdmkit.recipes.checks import check_objective
from vdmkit.registry import Choice
from vdmkit.schedules import AbstractSchedule, LearnedMonotone, PiecewiseLinear, Pinned, ends_of, gamma_and_derivative
from vdmkit.training import Update
from vdmkit.training.optimizers import interior_apart
from vdmkit.training.step import initial_state, train_steps

VARIANCE = 0.25
ENDS = (-8.0, 5.0)
UPDATE = Update(optax.sgd(0.1), 0.9, False)


class _Power(AbstractSchedule):
    """A schedule such as a plugin may define."""

    power: Array
    gamma_min: float = 0.0
    gamma_max: float = 1.0

    def __call__(self, t):
        return (t + 0.3) ** self.power


def _random(schedule: AbstractSchedule, scale: float) -> AbstractSchedule:
    """Replaces the parameters with random ones, as the gradient may vanish at the initial guess."""
    values, unravel = ravel_pytree(eqx.filter(schedule, eqx.is_inexact_array))
    moved = unravel(jnp.asarray(scale * np.random.default_rng(0).normal(size=values.shape)))
    return eqx.combine(moved, schedule)


# With 8 pieces the kinks lie on the edges of the quadrature's panels.
INTERIORS = {
    "learned_monotone": lambda: _random(LearnedMonotone(jax.random.key(0), width=5), 3.0),
    "piecewise_linear": lambda: _random(PiecewiseLinear(pieces=8), 1.0),
    "of a plugin": lambda: _Power(jnp.asarray(2.3)),
}


def _pinned(interior: AbstractSchedule, ends: str = "learned") -> Pinned:
    linear = Choice("schedule", "fixed_linear")
    schedule = Pinned(jax.random.key(0), interior=linear, gamma_min=ENDS[0], gamma_max=ENDS[1], ends=ends)
    return eqx.tree_at(lambda pinned: pinned.interior, schedule, interior)


def _mean_squared_loss(schedule: AbstractSchedule, times, dimensions: int) -> Array:
    """Returns E[L^2] in (bits/dim)^2, by the formula above and quadrature over t."""
    t, weight = times
    gamma, slope = jax.vmap(lambda t: gamma_and_derivative(schedule, t))(t)
    v = jax.nn.sigmoid(math.log(VARIANCE) - gamma)
    return (dimensions**2 + 2 * dimensions) / (2 * dimensions * math.log(2)) ** 2 * (weight @ (slope * v) ** 2)


@pytest.fixture
def oracle(gaussian):
    """Builds a model of continuous Gaussian data with its exact denoiser."""

    def build(schedule: AbstractSchedule, shape: tuple[int, int, int] = (2, 1, 1)) -> DiffusionModel:
        return gaussian(VARIANCE, schedule=schedule, observation=GaussianObservation(0), shape=shape)

    return build


@pytest.fixture
def nodes(times) -> tuple[Array, Array, Array, Array]:
    """x, eps and t of two pixels, with weights: Gauss-Hermite with 3 nodes is exact for L^2, of degree 4 in each."""
    point, mass = np.polynomial.hermite_e.hermegauss(3)
    grid = np.array(list(itertools.product(range(3), repeat=4)))
    gauss, (t, weight) = (mass / mass.sum())[grid].prod(1), times
    values = np.repeat(point[grid], len(t), axis=0).reshape(-1, 2, 2, 1, 1)
    x, eps = jnp.asarray(math.sqrt(VARIANCE) * values[:, 0]), jnp.asarray(values[:, 1])
    return x, eps, jnp.tile(t, len(grid)), jnp.asarray(np.outer(gauss, weight).ravel())


@eqx.filter_jit
def _gradient(objective: Objective, model: DiffusionModel, nodes, of_squares: bool) -> Pinned:
    """Returns the schedule's gradient in a training step, for a batch that is the quadrature.

    A mean over n images is the integral of L with weights n w, and that of L^2 with weights sqrt(n w).
    """
    x, eps, t, weight = nodes
    weight = len(t) * weight
    draws = Draws(eps, eps, t, jnp.sqrt(weight) if of_squares else weight, jax.random.split(jax.random.key(0), len(t)))
    gradient, _ = UPDATE.gradient(model, objective, {"image": x}, draws, key=None)
    return gradient.schedule


@pytest.mark.costly
@pytest.mark.parametrize("interior", INTERIORS)
def test_the_interior_follows_the_mean_squared_loss(oracle, nodes, times, interior: str) -> None:
    """The interior's gradient is that of E[L^2] in (bits/dim)^2."""
    schedule = _pinned(INTERIORS[interior]())
    found = _gradient(Objective(LowDiscrepancy(), Elbo(), 0, "variance"), oracle(schedule), nodes, True)
    values, unravel = ravel_pytree(eqx.filter(schedule.interior, eqx.is_inexact_array))

    @jax.jit
    @jax.vmap
    def value(moved: Array) -> Array:
        interior = eqx.combine(unravel(moved), schedule.interior)
        return _mean_squared_loss(_pinned(interior), times, 2)

    step = 1e-4 * jnp.eye(len(values))
    expected = (value(values + step) - value(values - step)) / 2e-4
    # error of the central difference: 1e-4 squared, and rounding of 5 * 1e-16 over 1e-4
    np.testing.assert_allclose(ravel_pytree(found.interior)[0], expected, rtol=1e-6, atol=1e-7)
    assert jnp.linalg.norm(expected) > 0.1


@pytest.mark.statistical
def test_the_ends_follow_the_bound(oracle, nodes) -> None:
    """The ends' gradient is that of all three terms of the bound, also where the interior follows the variance."""
    schedule = _pinned(INTERIORS["piecewise_linear"]())
    found, bound = (
        _gradient(Objective(LowDiscrepancy(), Elbo(), 0, follows), oracle(schedule), nodes, False).learned_ends
        for follows in ("variance", "bound")
    )
    np.testing.assert_array_equal(found, bound)
    v = expit(math.log(VARIANCE) - np.array(ENDS))
    alpha2, x2 = expit(-ENDS[1]), jnp.mean(nodes[0] ** 2)  # only the diffusion loss has the weights of the nodes
    prior = (alpha2 * (1 - alpha2) * (1 - x2) - alpha2) / 2
    # reconstruction, log N(x; z, exp(gamma_0)), and diffusion, int v dgamma / 2, in nats per dimension
    expected = np.array([1 - v[0], v[1] + 2 * prior]) / 2 / math.log(2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)  # 1e-16 / sigma_0 = 1e-14, and 448 times


@pytest.mark.statistical
def test_the_bound_does_not_move_the_interior(oracle, nodes) -> None:
    """The bound's gradient with respect to the interior is zero."""
    model = oracle(_pinned(INTERIORS["learned_monotone"]()))
    found = _gradient(Objective(LowDiscrepancy(), Elbo(), 0), model, nodes, False)
    values, _ = ravel_pytree(found.interior)
    np.testing.assert_allclose(values, 0, atol=1e-10)  # slopes at 36,000 nodes cancel, each with a rounding of 1e-14
    moved = _gradient(Objective(LowDiscrepancy(), Elbo(), 0, "variance"), model, nodes, True)
    assert jnp.abs(ravel_pytree(moved.interior)[0]).max() > 1e-2


@pytest.fixture(scope="module")
def before_and_after(gaussian) -> tuple[DiffusionModel, DiffusionModel]:
    """A model of 16 pixels with a schedule of 64 pieces, before and after 1,500 steps with 256 images each."""
    shape, steps = (4, 4, 1), 1500
    schedule = _pinned(PiecewiseLinear(pieces=64), ends="fixed")
    before = gaussian(VARIANCE, schedule=schedule, observation=GaussianObservation(0), shape=shape)
    optimizer = interior_apart(optax.adam(optax.cosine_decay_schedule(0.02, steps)))
    objective = Objective(LowDiscrepancy(), Elbo(), 0, "variance")
    state = initial_state(jax.tree.map(jnp.copy, before), optimizer, objective)
    x = math.sqrt(VARIANCE) * np.random.default_rng(0).normal(size=(steps, 256, *shape))
    inputs = (Update(optimizer, 0.9, False), {"image": jnp.asarray(x)}, jax.random.key(1))
    return before, train_steps(inputs, state)[0].model


@pytest.mark.statistical
def test_training_finds_the_optimal_density(before_and_after, times) -> None:
    """Training leads to p(gamma) ~ sqrt(m) and to the least variance.

    Measured: the distribution function is off by at most 0.010, where one piece holds the tail, and E[L^2] is 1.009
    times the minimum (1.669 times before training).
    """
    before, after = (model.schedule for model in before_and_after)
    t = jnp.linspace(0, 1, 20_001)
    gamma = np.asarray(jax.vmap(after)(t))
    above = np.logaddexp(0, math.log(VARIANCE) - np.append(ENDS, gamma))  # int v dgamma from gamma to infinity
    total = above[0] - above[1]
    assert abs((above[0] - above[2:]) / total - t).max() < 0.015
    least = (1 + 2 / 16) * (total / (2 * math.log(2))) ** 2
    first, last = (_mean_squared_loss(each, times, 16) / least for each in (before, after))
    assert first > 1.6
    assert 1 <= last < 1.015


@pytest.mark.statistical
def test_training_leaves_the_bound(before_and_after) -> None:
    """Training the interior leaves the bound unchanged, within 4 standard errors of 8,192 draws, and lowers its spread.

    The ends, which are fixed, do not move at all.
    """
    n, (key_x, key) = 8192, jax.random.split(jax.random.key(5))
    x = math.sqrt(VARIANCE) * jax.random.normal(key_x, (n, 4, 4, 1), float)
    objective = Objective(Uniform(), Elbo(), 0)
    draws = objective.draw(x.shape, key=key)
    first, last = (
        bits_per_dim(np.asarray(eqx.filter_jit(objective)(model, x, {}, draws).total), 16) for model in before_and_after
    )
    # 4 standard errors of the difference, computed from the same draws: false alarm 6e-5
    assert abs(first.mean() - last.mean()) < 4 * (first - last).std() / math.sqrt(n)
    assert last.std() < 0.6 * first.std()
    assert [ends_of(model.schedule) for model in before_and_after] == [ENDS, ENDS]


REFUSED = {
    "ends": ("model.schedule.name=learned_monotone", "the ends of the schedule are not fixed apart .* pinned"),
    "shape": ("model.schedule.interior=fixed_linear", "nothing to learn"),
    "steps": ("objective.steps=10", r"with objective.steps = 10 the bound depends on the interior"),
    "times": ("objective.time_sampler=discrete_grid", "discrete_grid the mean loss depends on the interior"),
    "weighting": ("objective.weighting=v", "this weighting depends on gamma'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_variance_may_not_be_of(digits_toml, name: str) -> None:
    """Settings under which the loss depends on the interior are refused with schedule_loss = variance."""
    override, message = REFUSED[name]
    overrides = ["objective.schedule_loss=variance", "model.schedule.name=pinned", override]
    with pytest.raises(RecipeError, match=message):
        check_objective(load_recipe(digits_toml, overrides))


@pytest.mark.parametrize("override", ["objective.weighting=sigmoid", "objective.time_sampler=loss_adaptive"])
def test_what_the_variance_may_be_of(digits_toml, override: str) -> None:
    """Weightings of gamma alone, and weighted times, which leave the mean unchanged, are accepted."""
    check_objective(
        load_recipe(digits_toml, ["objective.schedule_loss=variance", "model.schedule.name=pinned", override])
    )
