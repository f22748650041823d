# SPDX-License-Identifier: Apache-2.0
"""When a negative mean shows that its expectation is negative."""

import numpy as np
import pytest

from vdmkit.likelihood.intervals import depth_beyond_doubt, interval

F = 9e-7
SKEWED = {
    "normal": lambda rng, n: rng.normal(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
    "log-normal": lambda rng, n: rng.lognormal(0, 2, size=n) - np.exp(2),
    "rare": lambda rng, n: (rng.random(n) < 0.02) / 0.02 - 1,
}


@pytest.mark.costly
@pytest.mark.parametrize("kind", SKEWED)
@pytest.mark.parametrize("count", [10, 300])
def test_skewed_values_of_mean_zero_are_not_called_negative(kind: str, count: int) -> None:
    """The false-alarm rate is at most the requested 1e-3, for long-tailed distributions and few values."""
    rng = np.random.default_rng(0)
    samples = [SKEWED[kind](rng, count) for _ in range(300)]
    alarms = sum(-x.mean() > depth_beyond_doubt(x, 1e-3) for x in samples)
    assert alarms <= 2  # of 1e-3, more than 2 of 300 are 0.4% likely


def test_a_95_percent_interval_would_call_them_negative() -> None:
    """The log-normal case is hard: the mean is often below zero by more than its 95% interval."""
    rng = np.random.default_rng(0)
    found = [interval(SKEWED["log-normal"](rng, (2, 150))) for _ in range(200)]
    assert sum(each.value + each.half_width < 0 for each in found) > 20


def test_what_it_takes() -> None:
    """At the usual settings a mean 12 standard errors below zero is enough to call its expectation negative."""
    rng = np.random.default_rng(0)
    depths = {n: depth_beyond_doubt(rng.normal(size=n), F) * np.sqrt(n) for n in (600, 60_000)}
    # at the least sqrt(2 g), where g = 2^(1/8) log(641 / f) as in the module's docstring
    assert 6.66 < depths[60_000] < 7
    assert depths[600] < 12


def test_few_values_show_nothing() -> None:
    """Too few values prove nothing, even if they nearly agree: the depth is infinite below 234 values."""
    assert depth_beyond_doubt(np.array([-1.0, -1.0, -1.0, -1.001]), F) == np.inf
    assert [depth_beyond_doubt(np.ones(n), F) for n in (233, 234)] == [np.inf, 0.0]


def test_it_depends_on_deviations_alone() -> None:
    """The depth is invariant to shifts and scales with the unit."""
    values = np.random.default_rng(0).exponential(size=500)
    depth = depth_beyond_doubt(values, F)
    assert depth_beyond_doubt(values - 7, F) == pytest.approx(depth, rel=1e-6)
    assert depth_beyond_doubt(4 * values, F) == pytest.approx(4 * depth, rel=1e-6)
