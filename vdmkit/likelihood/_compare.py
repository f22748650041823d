# SPDX-License-Identifier: Apache-2.0
"""Compares two models on the same images by paired differences, whose error is smaller than that of either mean."""

import math

import numpy as np

from vdmkit.arguments import check_instance
from vdmkit.errors import DataError, UntrustedError
from vdmkit.likelihood._interval import Interval, interval
from vdmkit.likelihood._log_likelihood import LogLikelihood
from vdmkit.objective import bits_per_dim


def compare(first: LogLikelihood, second: LogLikelihood) -> Interval:
    """Returns the first minus the second in bits/dim, on the same images, with 95% half-widths.

    Below 0 the first model is better. Estimates of the same kind with the same key share their noise.

    Raises:
        DataError: the estimates are not of the same images.
        UntrustedError: one of the estimates is not a likelihood.
        RecipeError: an argument is not the result of `log_likelihood`.
    """
    for name, one in (("first", first), ("second", second)):
        check_instance(name, one, LogLikelihood)
    if not np.array_equal(first.hashes, second.hashes):
        raise DataError("compare: the estimates are of other images. Measure both on the same ones, in the same order.")
    if reasons := [*first.reasons(), *second.reasons()]:
        raise UntrustedError(f"compare: not likelihoods: {' '.join(reasons)}")
    found = interval(bits_per_dim(first.nats - second.nats, first.dimensions), first.groups)
    return found.with_solver(math.fsum(one.solver.half_width for one in (first, second) if one.solver))


def against_raw(averaged: LogLikelihood, raw: LogLikelihood) -> dict[str, float]:
    """Returns how much more averaged parameters take than raw ones in bits/dim, with its 95% half-width, by name.

    Args:
        averaged: Estimates of images, with averaged parameters.
        raw: Estimates of the first of them, with the same key; if they are not likelihoods, nothing is returned.
    """
    if raw.reasons():
        return {}
    found = compare(averaged.of_first(len(raw.index)), raw)
    return {"test/ema_minus_raw": found.value, "test/ema_minus_raw_half_width": found.half_width}
