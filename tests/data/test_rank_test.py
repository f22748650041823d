# SPDX-License-Identifier: Apache-2.0
"""Tests of exchangeability whose chances are counted, and so can be counted again."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from vdmkit.data.identity import apart, chance_of_as_many


@pytest.mark.parametrize(("n", "m"), [(4, 3), (5, 5), (2, 7), (1, 1)])
def test_the_chance_is_the_share_of_orders_as_far_apart(n: int, m: int) -> None:
    """The p-value is exact: here every order of the values is enumerated."""
    splits = [(list(first), sorted({*range(n + m)} - {*first})) for first in combinations(range(n + m), n)]
    found = [apart(np.array(first), np.array(second)) for first, second in splits]
    for distance, chance in found:
        as_far = sum(other >= distance for other, _ in found)
        # a path count and its logarithm in float64: a few roundings
        assert chance == pytest.approx(as_far / comb(n + m, n), abs=1e-12)


@pytest.mark.parametrize(("n", "m", "shift"), [(2000, 2000, 0.2), (1500, 297, 0.3), (2000, 1999, 9.0)])
def test_the_chance_of_large_samples_is_scipys(n: int, m: int, shift: float) -> None:
    """The p-value of thousands of images neither overflows nor loses digits."""
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    first, second = rng.normal(size=n), shift + rng.normal(size=m)
    expected = ks_2samp(first, second, method="exact")
    distance, chance = apart(first, second)
    assert distance == pytest.approx(expected.statistic, rel=1e-12)
    # 1 - a sum of n rows of m terms, through logarithms of about 3,000: 1e-16 times both
    assert chance == pytest.approx(expected.pvalue, abs=1e-10)


def test_equal_values_make_it_no_smaller_than_stated() -> None:
    """With ties the p-value is an upper bound."""
    rng, repeats = np.random.default_rng(0), 2000
    chances = [apart(rng.integers(0, 4, 30), rng.integers(0, 4, 20))[1] for _ in range(repeats)]
    for level in (0.05, 0.3):
        # 4 standard errors of a share, false alarm 6e-5
        assert np.mean(np.array(chances) <= level) <= level + 4 * np.sqrt(level * (1 - level) / repeats)


@pytest.mark.parametrize(
    ("marked", "count", "others_marked", "others"), [(3, 10, 1, 12), (8, 297, 0, 1500), (0, 5, 2, 9)]
)
def test_as_many_by_chance(marked: int, count: int, others_marked: int, others: int) -> None:
    """The p-value is the tail sum of the hypergeometric distribution."""
    whole, of_all = count + others, marked + others_marked
    tail = sum(comb(of_all, k) * comb(whole - of_all, count - k) for k in range(marked, min(of_all, count) + 1))
    # float64 logarithms of factorials of up to 1,800, each about 1e4
    assert chance_of_as_many(marked, count, others_marked, others) == pytest.approx(
        tail / comb(whole, count), rel=1e-10
    )
