# SPDX-License-Identifier: Apache-2.0
"""Two nonparametric two-sample tests, exact under exchangeability."""

import math

import numpy as np
import scipy
from jaxtyping import Real


def apart(first: Real[np.ndarray, " n"], second: Real[np.ndarray, " m"]) -> tuple[float, float]:
    """Returns the Kolmogorov-Smirnov distance of two samples, and its p-value.

    The p-value is exact for samples of one continuous distribution, by counting the orders of their values (Hodges
    1958, "The significance probability of the Smirnov two-sample test"). With ties it is an upper bound.
    """
    n, m = len(first), len(second)
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(sample), values, side="right") for sample in (first, second)]
    gap = int(np.abs(m * below[0] - n * below[1]).max())
    return gap / (n * m), 1 - _chance_of_less(gap, n, m)


def _chance_of_less(gap: int, n: int, m: int) -> float:
    """Returns the share of lattice paths from (0, 0) to (n, m) with |m i - n j| < gap at every point (i, j)."""
    n, m = min(n, m), max(n, m)  # paths mirrored at the diagonal; each turn of the loop takes a row of m + 1 points
    j = np.arange(m + 1)
    paths, scale = (n * j < gap).astype(float).cumprod(), 0.0
    for i in range(1, n + 1):
        # A point is reached from the left or from below; its row is rescaled, since the counts overflow.
        paths = np.where(np.abs(m * i - n * j) < gap, paths, 0.0).cumsum() * (np.abs(m * i - n * j) < gap)
        if not (largest := paths.max()):
            return 0.0
        paths, scale = paths / largest, scale + np.log(largest)
    if not paths[m]:
        return 0.0
    all_paths = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return float(np.exp(np.log(paths[m]) + scale - all_paths))


def chance_of_as_many(marked: int, count: int, marked_others: int, others: int) -> float:
    """Returns the one-sided p-value of Fisher's exact test, `marked` in `count` against `marked_others` in `others`.

    It is the chance that `count` images drawn at random from all images include at least `marked` of the marked ones.
    """
    all_marked, unmarked = marked + marked_others, count + others - marked - marked_others
    k = np.arange(marked, min(count, all_marked) + 1)
    k = k[count - k <= unmarked]
    all_choices = _log_choose(count + others, np.array([count]))
    logs = _log_choose(all_marked, k) + _log_choose(unmarked, count - k) - all_choices
    return float(min(np.exp(scipy.special.logsumexp(logs)), 1.0))


def _log_choose(n: int, k: Real[np.ndarray, " j"]) -> Real[np.ndarray, " j"]:
    return scipy.special.gammaln(n + 1) - scipy.special.gammaln(k + 1) - scipy.special.gammaln(n - k + 1)
