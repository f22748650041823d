# SPDX-License-Identifier: Apache-2.0
"""When a mean that came out negative shows that its expectation is negative, and when it does not."""

import numpy as np
import pytest

from vdmkit.likelihood import interval
from vdmkit.likelihood.intervals import depth_beyond_doubt

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
    """False if the false alarm were not the one that is asked for, 1e-3 here, where tails are long or values few."""
    rng = np.random.default_rng(0)
    samples = [SKEWED[kind](rng, count) for _ in range(300)]
    alarms = sum(-x.mean() > depth_beyond_doubt(x, 1e-3) for x in samples)
    assert alarms <= 2  # of 1e-3, more than 2 of 300 are 0.4% likely


def test_a_95_percent_interval_would_call_them_negative() -> None:
    """False if the test before had no power: these values' mean is often below 0 by more than its interval says."""
    rng = np.random.default_rng(0)
    found = [interval(SKEWED["log-normal"](rng, (2, 150))) for _ in range(200)]
    assert sum(each.value + each.half_width < 0 for each in found) > 20


def test_what_it_takes() -> None:
    """False if a negative expectation were never found: a dozen standard errors are enough at the usual settings."""
    rng = np.random.default_rng(0)
    depths = {n: depth_beyond_doubt(rng.normal(size=n), F) * np.sqrt(n) for n in (600, 60_000)}
    # at the least sqrt(2 g), where g = 2^(1/8) log(641 / f) as in the module's docstring
    assert 6.66 < depths[60_000] < 7
    assert depths[600] < 12


def test_few_values_show_nothing() -> None:
    """False if values that agree by chance were proof: 4 of 2 images, which all missed where the loss is, say."""
    assert depth_beyond_doubt(np.array([-1.0, -1.0, -1.0, -1.001]), F) == np.inf
    assert [depth_beyond_doubt(np.ones(n), F) for n in (233, 234)] == [np.inf, 0.0]


def test_it_depends_on_deviations_alone() -> None:
    """False if what is printed depended on the side to which Monte Carlo errs, or on the unit."""
    values = np.random.default_rng(0).exponential(size=500)
    depth = depth_beyond_doubt(values, F)
    assert depth_beyond_doubt(values - 7, F) == pytest.approx(depth, rel=1e-6)
    assert depth_beyond_doubt(4 * values, F) == pytest.approx(4 * depth, rel=1e-6)
