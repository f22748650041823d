# SPDX-License-Identifier: Apache-2.0
"""Differences of results on the same images, from the estimates of each image that were kept."""

import math
from collections.abc import Iterable

import numpy as np

from vdmkit.likelihood.intervals import Interval, interval
from vdmkit.losses.bound import bits_per_dim
from vdmkit.page._files import Result


def best_measured(pairs: Iterable[tuple[Result, Result]], dimensions: int) -> list[tuple[Result, Result, Interval]]:
    """Returns the pairs that compare, with their differences: for each estimator and weights, the one of most effort.

    Two results of one `vdmkit compare` are preferred, because they share their noise; among these, or others, the one
    of most evaluations. A choice by the estimated errors would make them too small.
    """
    found: dict[tuple[str, ...], tuple[Result, Result]] = {}
    for pair in pairs:
        if compare_alike(*pair):
            kind = pair[0].facts["estimator"], pair[0].facts["weights"], pair[1].facts["weights"]
            found[kind] = max(found.get(kind, pair), pair, key=_effort)
    return [(*pair, difference(*pair, dimensions)) for pair in found.values()]


def _effort(pair: tuple[Result, Result]) -> tuple[bool, int]:
    one, other = (result.facts for result in pair)
    together = one.get("compared_by")
    return together is not None and together == other.get("compared_by"), one["evaluations"] + other["evaluations"]


def compare_alike(first: Result, second: Result) -> bool:
    """Returns whether two results are trusted likelihoods of the same distinct images by the same estimator."""
    one, other = first.facts, second.facts
    same = all(one[key] == other[key] for key in ("sha256", "estimator", "label", "images", "levels"))
    trusted = all(facts["trusted"] and facts["images"] == facts["distinct_images"] for facts in (one, other))
    kept = all("index" in result.arrays for result in (first, second))
    return same and trusted and kept and np.array_equal(first.arrays["index"], second.arrays["index"])


def difference(first: Result, second: Result, dimensions: int) -> Interval:
    """Returns the first minus the second, bits/dim, as `vdmkit.likelihood.compare` does, from what was kept of both."""
    nats = [sum(array for name, array in one.arrays.items() if name.startswith("term_")) for one in (first, second)]
    found = interval(bits_per_dim(np.asarray(nats[0] - nats[1], np.float64), dimensions))
    return found.with_solver(math.fsum(_of_solver(one) for one in (first, second)))


def _of_solver(result: Result) -> float:
    facts = result.facts
    return (
        max(0.0, facts["bpd_high"] - facts["bpd"] - facts["half_width_monte_carlo"])
        if facts["discretisation"] is not None
        else 0.0
    )
