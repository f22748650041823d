# SPDX-License-Identifier: Apache-2.0
"""Schedules rise, their derivative is exact, and the learned ones equal the authors'."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from vdmkit.conformance import check_schedule
from vdmkit.errors import RecipeError
from vdmkit.process import VariancePreserving
from vdmkit.registry import Choice, registry
from vdmkit.schedules import (
    AbstractSchedule,
    FixedLinear,
    LearnedLinear,
    LearnedMonotone,
    LinearBeta,
    PiecewiseLinear,
    Pinned,
    check_increasing,
    ends_of,
    gamma_and_derivative,
)

ENDS = {"gamma_min": -7.0, "gamma_max": 3.0}
# Ends far enough from poles, and kinks on the edges of the quadrature's panels.
SETTINGS = {
    "karras": {"sigma_min": np.exp(-3.5), "sigma_max": np.exp(1.5)},
    "log_linear": {"sigma_min": np.exp(-3.5), "sigma_max": np.exp(1.5)},
    "log_normal": {"sigma_min": np.exp(-3.5), "sigma_max": np.exp(1.5)},
    "linear_beta": {"epsilon": 1e-3},
    "sub_vp_linear_beta": {"epsilon": 1e-3},
    "tabulated": {"table": "cosine", "steps": 17},
    "laplace": ENDS | {"mean": -2.0},
}
# The monotone network starts off its ends by the mean of 1024 products of two |N(0, 0.01^2)|: 1e-4 at most. The others
# are exact up to rounding of gamma, which tan magnifies tenfold.
OFF = {"learned_monotone": 1e-4}


def _monotone(l1, k2, b2, k3) -> LearnedMonotone:
    """Builds the network with the given weights; l1 = (weight, bias)."""
    schedule = LearnedMonotone(jax.random.key(0), width=len(k2))
    weights = [jnp.asarray(w) for w in ([[l1[0]]], [l1[1]], k2[None], b2, k3[:, None])]
    return eqx.tree_at(lambda s: (s.l1.kernel, s.l1.bias, s.l2.kernel, s.l2.bias, s.l3.kernel), schedule, weights)


def _values(schedule, t):
    gamma, derivative = jax.jit(jax.vmap(lambda t: gamma_and_derivative(schedule, t)))(jnp.asarray(t, float))
    return np.asarray(gamma), np.asarray(derivative)


def test_monotone_network_has_the_authors_values() -> None:
    """The monotone network has the values of the authors' code for given weights."""
    j = np.arange(1024)
    k2 = 0.01 * (-1.0) ** j * (j % 7 + 1)
    b2 = 0.1 * (j % 5 - 2)
    k3 = 0.5 * (-1.0) ** (j // 2) * (j % 3 + 1)
    gamma, derivative = _values(_monotone((18.3, -13.3), k2, b2, k3), [0, 0.25, 0.5, 0.9, 1])
    # PAPER 19.13, computed in float32: 2 ulp at 16
    np.testing.assert_allclose(gamma, [-13.319930, -8.735003, -4.150074, 3.185813, 5.019784], rtol=0, atol=4e-6)
    np.testing.assert_allclose(derivative, [18.339695, 18.339716, 18.339724, 18.339706, 18.339697], rtol=0, atol=4e-6)


def test_monotone_network_rises_by_its_closed_form_whatever_the_signs() -> None:
    """Negative weights, which training may produce, keep gamma rising with the closed-form derivative."""
    k2, b2, k3 = np.array([[3.0], [1.0], [20.0]]) * np.random.default_rng(0).normal(size=(3, 32))
    t = np.linspace(0, 1, 101)
    gamma, derivative = _values(_monotone((-7.0, 2.0), k2, b2, k3), t)
    s = 1 / (1 + np.exp(-abs(k2) * (2 * t[:, None] - 1) - b2))
    expected = 7 + (abs(k3) * 4 * abs(k2) * s * (1 - s)).mean(-1)  # PAPER section 5
    np.testing.assert_allclose(derivative, expected, rtol=1e-12)  # 32 terms, all positive
    assert (np.diff(gamma) > 0).all()


@pytest.mark.parametrize("w", [18.3, -4.0])
def test_learned_linear_slope_is_the_absolute_weight(w: float) -> None:
    """The slope is |w|: a negative w, as the authors' code allows, keeps gamma rising."""
    schedule = eqx.tree_at(lambda s: s.w, LearnedLinear(), jnp.array([w]))
    gamma, derivative = _values(schedule, [0, 0.3, 1])
    np.testing.assert_allclose(gamma, -13.3 + abs(w) * np.array([0, 0.3, 1]), rtol=1e-15)
    np.testing.assert_allclose(derivative, abs(w), rtol=0)


@pytest.mark.parametrize("name", sorted(registry("schedule").components))
def test_every_schedule_rises_from_end_to_end(name: str, times) -> None:
    """gamma rises everywhere between its stated ends, and gamma' integrates to their difference."""
    component = registry("schedule").get(name)
    own_ends = ENDS if ENDS.keys() <= component.parameters.keys() else {}
    schedule = component.build({"key": jax.random.key(2)}, **SETTINGS.get(name, own_ends))
    t, weight = times
    assert (_values(schedule, t)[1] > 0).all()
    ends, _ = _values(schedule, [0, 1])
    np.testing.assert_allclose(ends, [schedule.gamma_min, schedule.gamma_max], rtol=0, atol=OFF.get(name, 1e-13))
    np.testing.assert_allclose(weight @ _values(schedule, t)[1], ends[1] - ends[0], rtol=1e-13)


@pytest.mark.system
@pytest.mark.parametrize("name", sorted(registry("schedule").components))
def test_every_schedule_can_be_pinned(name: str) -> None:
    """A pinned schedule has exactly the given ends in either precision, for every registered shape."""
    schedule = Pinned(jax.random.key(2), interior=Choice("schedule", name), gamma_min=-7.3, gamma_max=3.1)
    check_schedule(schedule)
    with jax.enable_x64(False):
        narrow = Pinned(jax.random.key(2), interior=Choice("schedule", name), gamma_min=-7.3, gamma_max=3.1)
        ends = ends_of(narrow)
    assert ends == (np.float32(-7.3), np.float32(3.1))
    assert ends_of(schedule) == (-7.3, 3.1)


@pytest.mark.costly
@pytest.mark.parametrize("ends", [(2.0, -4.0), (-4.0, 2.0)])
def test_pinned_ends_stay_in_order(ends: tuple[float, float]) -> None:
    """If training drives one end past the other, the ends are sorted and gamma still rises."""
    schedule = eqx.tree_at(lambda s: s.learned_ends, Pinned(jax.random.key(0)), jnp.array(ends))
    assert ends_of(schedule) == (-4.0, 2.0)
    check_increasing(schedule)


@pytest.mark.costly
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_straight_pieces_rise_everywhere(scale: float) -> None:
    """Every piece keeps a slope of at least `floor`, whatever its logits, and the ends do not move."""
    logits = jnp.asarray(scale * np.random.default_rng(0).normal(size=11))
    schedule = eqx.tree_at(lambda s: s.logits, PiecewiseLinear(pieces=11, floor=0.02), logits)
    _, slope = _values(schedule, (np.arange(1100) + 0.5) / 1100)
    knots, _ = _values(schedule, np.arange(12) / 11)
    assert slope.min() >= 0.02 * 18.3 * (1 - 1e-12)  # one rounding
    np.testing.assert_allclose(slope[50::100], np.diff(knots) * 11, rtol=1e-10)  # straight from knot to knot
    np.testing.assert_allclose(knots[[0, -1]], [-13.3, 5.0], rtol=1e-14)
    check_schedule(schedule)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_linear_beta_is_the_variance_preserving_sde(epsilon: float) -> None:
    """alpha^2 = exp(-int beta), decaying at the rate beta: Song et al. 2021, arXiv 2011.13456, App. C."""
    schedule = LinearBeta(beta_min=0.2, beta_max=15.0, epsilon=epsilon)
    t = np.linspace(0, 1, 101)
    s = epsilon + (1 - epsilon) * t
    integral, beta = 0.2 * s + 14.8 * s**2 / 2, 0.2 + 14.8 * s
    gamma, derivative = _values(schedule, t)
    path = VariancePreserving()
    # gamma of -13 to 8 is rounded by 2e-15, which is the relative rounding of alpha and sigma
    np.testing.assert_allclose(jax.vmap(path.alpha)(jnp.asarray(gamma)) ** 2, np.exp(-integral), rtol=1e-13)
    np.testing.assert_allclose(jax.vmap(path.sigma)(jnp.asarray(gamma)) ** 2, -np.expm1(-integral), rtol=1e-13)
    decay = -2 * jax.vmap(jax.grad(path.log_alpha))(jnp.asarray(gamma)) * derivative / (1 - epsilon)
    np.testing.assert_allclose(decay, beta, rtol=1e-13)
    np.testing.assert_allclose([schedule.gamma_min, schedule.gamma_max], gamma[[0, -1]], rtol=1e-14)


def test_linear_beta_is_sound_and_right_in_float32() -> None:
    """The steep start is accepted, and float32 is accurate there and where exp(1000) - 1 would overflow."""
    for schedule in (LinearBeta(), LinearBeta(epsilon=1e-8), LinearBeta(beta_max=2000.0)):
        check_increasing(schedule)
        exact, slope = _values(schedule, [0, 1e-5, 1e-3, 0.1, 1])
        with jax.enable_x64(False):
            gamma, derivative = _values(schedule, [0, 1e-5, 1e-3, 0.1, 1])
        assert gamma.dtype == np.float32
        # a few float32 roundings (6e-8) of gamma, and of s and B, which are absolute errors of log B
        np.testing.assert_allclose(gamma, exact, rtol=5e-7, atol=5e-7)
        np.testing.assert_allclose(derivative, slope, rtol=2e-6)


class _Bent(AbstractSchedule):
    """In the second half of time, rises at `slope` times the normal rate."""

    slope: float
    gamma_min: float = -1.0
    gamma_max: float = 1.0

    def __call__(self, t):
        return self.gamma_min + 2 * jnp.where(t < 0.5, t, 0.5 + self.slope * (t - 0.5))


@pytest.mark.parametrize("slope", [-0.1, 0.0, np.nan])
def test_a_schedule_that_does_not_rise_is_refused(slope: float) -> None:
    """A schedule that is flat, falls or is NaN over part of time is refused."""
    check_increasing(_Bent(1e-3))
    with pytest.raises(RecipeError, match="does not rise"):
        check_increasing(_Bent(slope))


_SOUND = {
    "flat at the start": lambda t: -13.3 + 18.3 * t**4,
    "flat at the end": lambda t: -13.3 + 18.3 * (1 - (1 - t) ** 4),
    "steep in the middle": lambda t: -13.3 + 18.3 * jax.nn.sigmoid(30 * (t - 0.5)),
    "steep at the start": lambda t: 18 * (t + 1e-6) ** 0.25 - 13,
    "steep at both ends": lambda t: 2 * jax.scipy.special.logit(1e-5 + (1 - 2e-5) * t),
    "in float32": lambda t: -13.3 + 18.3 * t.astype(jnp.float32) ** 4,
}
_UNSOUND = {
    "a jump of 0.01": lambda t: -13.3 + 18.29 * t + jnp.where(t > 0.5, 0.01, 0.0),
    "up and down again": lambda t: -13.3 + 18.3 * t + jnp.where((t > 0.3) & (t < 0.305), 1.0, 0.0),
    "a wave": lambda t: -13.3 + 18.3 * t + 0.2 * jnp.sin(200 * jnp.pi * t),
    "a dip": lambda t: -13.3 + 18.3 * t - 2 * jnp.exp(-(((t - 0.505) / 0.001) ** 2)),
    "stairs": lambda t: -13.3 + 18.3 * jnp.floor(10_000 * t) / 10_000,
}


class _Function(AbstractSchedule):
    """Any function of time."""

    function: Callable[[Array], Array] = eqx.field(static=True)
    gamma_min: float = -1.0
    gamma_max: float = 1.0

    def __call__(self, t):
        return self.function(t)


@pytest.mark.parametrize("name", _SOUND)
def test_a_steep_or_flat_schedule_is_allowed(name: str) -> None:
    """Schedules that are steep or flat at their ends, as in the literature, are accepted."""
    check_increasing(_Function(_SOUND[name]))


@pytest.mark.parametrize("name", _UNSOUND)
def test_a_schedule_that_jumps_or_falls_is_refused(name: str) -> None:
    """Jumps and falls of gamma, which would put the bound below the data's entropy, are refused."""
    with pytest.raises(RecipeError, match=r"without jumps|does not rise"):
        check_increasing(_Function(_UNSOUND[name]))


def test_a_schedule_without_ends_in_order_is_refused() -> None:
    """A schedule with gamma_min not below gamma_max is refused."""
    with pytest.raises(RecipeError, match="gamma_min = 5 must be below gamma_max = 5"):
        FixedLinear(gamma_min=5.0)
