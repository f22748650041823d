# SPDX-License-Identifier: Apache-2.0
"""Step grids against brute force and calculus, and variances under schedules against closed forms, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import NonFiniteError, RecipeError
from vdmkit.likelihood import VariationalBound
from vdmkit.process import AbstractGrid, GivenGammas, steps_of_bound
from vdmkit.registry import Choice
from vdmkit.reverse import GaussianKernel
from vdmkit.schedule_search import cheapest_paths, costs_of_gaussian
from vdmkit.schedule_search.measurement import Curve, errors_at, steps_from
from vdmkit.schedule_search.steps import closed_form, cost_of
from vdmkit.schedule_search.variance import best_rate, fine, rate_of, variance
from vdmkit.schedules import Cosine, FixedLinear, gammas_of

LOW, HIGH = -8.0, 4.0


def error_of(gamma, s2=0.25):
    """Returns E(eps - eps_hat)^2 for a scalar x ~ N(0, s2) with its exact denoiser."""
    return s2 / (s2 + np.exp(gamma))


def curve_of(dimensions: int = 10_000) -> Curve:
    """Builds a curve of so many independent values that every image has the mean error."""
    gamma = np.linspace(LOW, HIGH, 61)
    error = np.broadcast_to(dimensions * error_of(gamma)[:, None], (2, 61, 3))
    return Curve(gamma, error, np.zeros((2, 3)))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_the_cheapest_way_is_the_best_of_all(steps: int) -> None:
    """Dynamic programming finds the cheapest of all grids, for arbitrary costs."""
    costs = np.random.default_rng(steps).uniform(size=(9, 9))
    every = [np.array([0, *inner, 8]) for inner in itertools.combinations(range(1, 8), steps - 1)]
    best = min(every, key=lambda path: cost_of(costs, path))
    found = cheapest_paths(costs, steps)[steps - 1]
    np.testing.assert_array_equal(found, best)
    with pytest.raises(RecipeError, match="at most 8 fit"):
        cheapest_paths(costs, 9)


def test_costs_are_those_of_the_kernels() -> None:
    """The costs are E KL of the steps in closed form, and their sum converges to the continuous loss."""
    gamma, d = np.linspace(LOW, HIGH, 200), 3
    mean = d * error_of(gamma)
    # for x ~ N(0, s2) the best variance is exact: 1/2 log (1 + s2 SNR_0) / (1 + s2 SNR_1) a value
    exact = d / 2 * np.log((1 + 0.25 * np.exp(-LOW)) / (1 + 0.25 * np.exp(-HIGH)))
    for path in ([0, 199], [0, 50, 120, 199]):
        found = cost_of(costs_of_gaussian(gamma, mean, d, optimal_variance=True), np.asarray(path))
        np.testing.assert_allclose(found, exact, rtol=1e-12)
        assert cost_of(costs_of_gaussian(gamma, mean, d), np.asarray(path)) > exact
    many = cost_of(costs_of_gaussian(gamma, mean, d), np.arange(200))
    np.testing.assert_allclose(many, exact, rtol=0.04)  # first order in the step, 0.06


@pytest.mark.parametrize("steps", [25, 100])
def test_the_closed_form_is_as_good_as_dynamic_programming(steps: int) -> None:
    """The density sqrt(M + M') is optimal to second order in 1 / T."""
    gamma, mean = np.linspace(LOW, HIGH, 1000), error_of(np.linspace(LOW, HIGH, 1000))
    path = cheapest_paths(costs_of_gaussian(gamma, mean, 1), steps)[-1]

    def excess(grid) -> float:
        rate = np.expm1(np.diff(grid)) / 2
        return float(rate @ error_of(grid[1:]) - np.trapezoid(mean, gamma) / 2)

    dynamic, closed = excess(gamma[path]), excess(closed_form(gamma, mean, steps))
    uniform = excess(np.linspace(LOW, HIGH, steps + 1))
    assert dynamic < closed * 1.01  # optimal up to rounding 100 steps to 1,000 nodes
    assert closed < dynamic * 1.03  # terms of third order in 1/T are neglected
    assert closed < uniform * 0.95


def test_variances_are_those_of_the_closed_forms() -> None:
    """Variances are E L^2 - (E L)^2; both are integrals if all images have the same error."""
    curve = curve_of()
    gamma, d = fine(curve), 10_000
    linear = variance(curve, rate_of(FixedLinear(gamma_min=-3.0, gamma_max=9.0), gamma))
    square = np.trapezoid(error_of(gamma) ** 2, gamma) * (HIGH - LOW) / 4
    mean = np.trapezoid(error_of(gamma), gamma) / 2
    np.testing.assert_allclose(linear, d**2 * (square - mean**2), rtol=1e-5)
    # if errors concentrate, the best schedule makes L constant in t, with zero variance (PAPER section 8)
    assert abs(variance(curve, best_rate(curve))) < 1e-6 * linear
    assert variance(curve, rate_of(Cosine(), gamma)) > linear


def test_a_schedule_is_stretched_to_the_ends() -> None:
    """Schedules are rescaled to the curve's ends, so that they take unit time on its interval."""
    gamma = np.linspace(LOW, HIGH, 20_001)
    for schedule in (FixedLinear(), Cosine(), FixedLinear(gamma_min=0.0, gamma_max=1.0)):
        np.testing.assert_allclose(np.trapezoid(1 / rate_of(schedule, gamma), gamma), 1, rtol=1e-4)


@pytest.mark.costly
def test_measured_errors_and_steps_are_the_exact_ones(gaussian) -> None:
    """Measured errors and costs of steps agree with the closed forms to 4 standard errors."""
    model, d = gaussian(0.25, shape=(16, 16, 1)), 256
    gamma, n = np.linspace(LOW, HIGH, 5), 64
    x = jax.random.choice(jax.random.key(1), jnp.array([0, 1], jnp.uint8), (n, 16, 16, 1))  # x = -1/2 or 1/2: s2 = 1/4
    errors = [errors_at(model, np.asarray(x), gamma, t, key=jax.random.key(0)) for t in range(5)]
    samples = np.stack(errors).mean(1)
    np.testing.assert_array_less(abs(samples.mean(1) - d * error_of(gamma)), 4 * samples.std(1) / np.sqrt(n))
    each = [
        steps_from(model, GaussianKernel(), np.asarray(x), gamma, t, batch_size=32, key=jax.random.key(2))
        for t in range(5)
    ]
    pairs = np.stack(each, axis=2)
    expected = costs_of_gaussian(gamma, d * error_of(gamma), d)
    for s, t in itertools.combinations(range(5), 2):
        of_pair = pairs[:, s, t].mean(0)
        assert abs(of_pair.mean() - expected[s, t]) < 4 * of_pair.std() / np.sqrt(n)
    assert not pairs[:, *np.tril_indices(5)].any()


def test_a_bound_of_a_curve_is_a_sum_of_steps() -> None:
    """Errors between the measured gammas are interpolated accurately: the cubic spline errs by 1e-6."""
    curve = curve_of(dimensions=1)
    at = np.linspace(LOW, HIGH, 37)
    np.testing.assert_allclose(curve.bound(at, np.ones(37)), np.full((2, 3), error_of(at).sum()), rtol=1e-5)


def test_errors_of_nothing(gaussian) -> None:
    """A curve with zero error at one gamma is handled, and an error that is not finite is refused."""
    curve = curve_of()
    exact_at_the_data = Curve(curve.gamma, np.where(np.arange(61)[:, None] == 0, 0.0, curve.error), curve.ends)
    assert np.isfinite(variance(exact_at_the_data, best_rate(exact_at_the_data)))
    assert (exact_at_the_data.mean(curve.gamma) > 0).all()
    images = np.zeros((2, 4, 4, 1), np.uint8)
    with pytest.raises(NonFiniteError, match="at gamma = 0 is not finite"):
        errors_at(gaussian(float("nan"), shape=(4, 4, 1)), images, np.linspace(0, 1, 2), 0, key=jax.random.key(0))


@pytest.mark.parametrize("times", [(1.0, 0.5, 0.1), (0.9, 0.5, 0.0)])
def test_a_grid_of_a_bound_has_both_ends(gaussian, times) -> None:
    """Grids that omit an end are refused; their bound would be too low (1.40 instead of 1.76 on digits)."""
    model = gaussian(0.25, shape=(4, 4, 1))
    choice = Choice("grid", "tabulated", {"times": times})
    with pytest.raises(RecipeError, match="A bound needs the whole range"):
        VariationalBound(steps=2, grid=choice).gammas(model.schedule)


def test_a_grid_of_a_bound_falls() -> None:
    """A grid whose gammas do not fall, such as a plugin's, is refused."""

    class Odd(AbstractGrid):
        def __call__(self, schedule, steps):
            return gammas_of(schedule, steps)[jnp.array([3, 1, 2, 0])]

    with pytest.raises(RecipeError, match="Odd: its gammas do not fall"):
        steps_of_bound(Odd(), FixedLinear(), 3)


def test_saved_gammas_fit_the_schedule() -> None:
    """A saved grid is unchanged on its own schedule, rescaled to a different one, and refused for another T."""
    saved = (-13.3, -6.0, -1.0, 5.0)
    np.testing.assert_allclose(GivenGammas(gammas=saved)(FixedLinear(), 3), saved[::-1], rtol=1e-12)
    other = GivenGammas(gammas=saved)(FixedLinear(gamma_min=-10.0, gamma_max=2.0), 3)
    np.testing.assert_allclose(
        jnp.stack([other[0], other[-1]]), gammas_of(FixedLinear(gamma_min=-10.0, gamma_max=2.0), 1)[::-1]
    )
    with pytest.raises(RecipeError, match="has 3 steps, but 4 were asked for"):
        GivenGammas(gammas=saved)(FixedLinear(), 4)
    for gammas in ((1.0,), (0.0, 2.0, 1.0), (1.0, 1.0)):
        with pytest.raises(RecipeError, match="rise or fall"):
            GivenGammas(gammas=gammas)
