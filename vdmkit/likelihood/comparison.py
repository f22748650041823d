# SPDX-License-Identifier: Apache-2.0
"""Comparison of two models by paired differences of their likelihoods on the same images.

The error of the mean paired difference is smaller than that of either mean. `plan_pair` plans the estimates of both
models so that they share their draws, `compare` returns the interval of the difference, and `Comparison` is the report:
both likelihoods, their difference, and how many more draws or images would decide its sign.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, Real

from vdmkit.arguments import check_instance
from vdmkit.data.identity import check_pixels
from vdmkit.data.sources import AbstractPixels, select
from vdmkit.devices import finite, precisely
from vdmkit.errors import DataError, RecipeError, UntrustedError
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.estimator import AbstractEstimator, as_arguments, check_condition, rows_of
from vdmkit.likelihood.intervals import Interval, check_count, check_index, interval
from vdmkit.likelihood.log_likelihood import LogLikelihood
from vdmkit.likelihood.report import LikelihoodReport
from vdmkit.losses.bound import bits_per_dim
from vdmkit.model import DiffusionModel
from vdmkit.randomness import fold_purpose
from vdmkit.schedules import check_increasing


def check_same_estimator(first: str, second: str) -> None:
    """Raises RecipeError if the descriptions of the two estimators differ."""
    if first != second:
        raise RecipeError(
            f"compare: the first is measured by {first}, and the second by {second}. "
            "Give --estimator, and --steps of a bound, for both."
        )


@dataclass(frozen=True)
class Comparison:
    """Two likelihoods of the same images by the same estimator, and the first minus the second, in bits/dim.

    Raises:
        RecipeError: the estimators differ.
    """

    first: LikelihoodReport
    second: LikelihoodReport
    difference: Interval

    def __post_init__(self) -> None:
        check_same_estimator(self.first.estimator, self.second.estimator)

    @property
    def error_on_these(self) -> float:
        """Returns the 95% half-width of the difference on these images: Monte Carlo error plus solver error."""
        return self.difference.half_width_monte_carlo + self.difference.half_width_solver

    @property
    def times_draws(self) -> float | None:
        """Returns how many times as many draws would decide the sign on these images; None if it is decided."""
        return times_to_decide(self.error_on_these, self.difference.value)

    @property
    def times_images(self) -> float | None:
        """Returns how many times as many images would decide the sign for the population; None if it is decided."""
        return times_to_decide(self.difference.half_width, self.difference.value)

    def as_json(self) -> dict[str, Any]:
        """Returns the comparison as JSON values; infinity, for a difference of exactly 0, becomes null."""
        of_both = {"first": self.first.as_json(), "second": self.second.as_json()}
        times = {"times_draws": self.times_draws, "times_images": self.times_images}
        return of_both | finite({"difference": asdict(self.difference), **times})

    def __str__(self) -> str:
        value, others = self.difference.value, self.difference.half_width
        lines = [
            f"first       {_of_report(self.first)}",
            f"second      {_of_report(self.second)}",
            f"difference  {value:+.4f} +/- {self.error_on_these:.4f} bits/dim on these {self.first.images:,} images "
            f"(95%); +/- {others:.4f} on others",
            f"            {self._verdict(self.times_draws, 'on these images', 'draws')}",
            f"            {self._verdict(self.times_images, 'on other images', 'images')}",
        ]
        remarks = [*self.first.remarks, *self.second.remarks]
        return "\n".join([*lines, *(f"            {remark}" for remark in dict.fromkeys(remarks))])

    def _verdict(self, times: float | None, where: str, of_what: str) -> str:
        if times is None:
            return f"{where}: the {'first' if self.difference.value < 0 else 'second'} is better"
        if math.isinf(times):
            return f"{where}: no difference"
        return f"{where}: not decided; about {times:.2g} times as many {of_what} would"


def _of_report(report: LikelihoodReport) -> str:
    held_out = ", NOT A TEST LIKELIHOOD" if report.held_out is False else ""
    return f"{report.bpd:.4f} +/- {report.half_width_monte_carlo:.4f} bits/dim, {report.estimator}{held_out}"


def times_to_decide(half_width: float, value: float) -> float | None:
    """Returns how many times larger a sample must be for its half-width to equal |value|; None if it is below."""
    if abs(value) > half_width:
        return None
    return (half_width / abs(value)) ** 2 if value else math.inf


def compare(first: LogLikelihood, second: LogLikelihood) -> Interval:
    """Returns the first minus the second in bits/dim, on the same images, with 95% half-widths.

    A negative difference means that the first model is better. Estimates of the same kind with the same key share their
    noise, most of which then cancels.

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
    """Returns metrics that compare averaged (EMA) with raw parameters: the difference in bits/dim, and its half-width.

    Args:
        averaged: Estimates of images, with averaged parameters.
        raw: Estimates of the first of these images, with raw parameters and the same key. If they are not likelihoods,
            the result is empty.
    """
    if raw.reasons():
        return {}
    found = compare(averaged.of_first(len(raw.index)), raw)
    return {"test/ema_minus_raw": found.value, "test/ema_minus_raw_half_width": found.half_width}


Told = Mapping[str, Real[Array | np.ndarray, "..."]] | None


@precisely
def plan_pair(
    first: DiffusionModel,
    second: DiffusionModel,
    images: Real[Array | np.ndarray | AbstractPixels, "n h w c"],
    *,
    key: PRNGKeyArray,
    estimator: AbstractEstimator[Any] | None = None,
    conditions: tuple[Told, Told] = (None, None),
    precision: float = 0.0,
    index: Int[np.ndarray, " m"] | None = None,
) -> tuple[Any, Any]:
    """Returns one plan for each model, with which `compare` has the smallest error.

    Both calls of `log_likelihood` must use the images, key, estimator and index given here. Each remains an unbiased
    estimate of its own model's bound, possibly with a wider interval than under a plan of its own. If both models are
    the same, so are the plans and the estimates.

    Raises:
        DataError: as `log_likelihood`, for either model.
        RecipeError: as `log_likelihood`, for either model.
    """
    pixels = images if isinstance(images, AbstractPixels) else np.asarray(images)
    estimator = estimator or VariationalBound()
    for model in (first, second):
        check_pixels(model, pixels)
        check_increasing(model.schedule)
    index = np.arange(len(pixels)) if index is None else check_index(np.asarray(index), len(pixels))
    chosen = select(pixels, index)
    check_count(chosen)
    one, other = (rows_of(check_condition(condition, len(pixels)), index) for condition in conditions)
    for condition in (one, other):
        as_arguments(estimator, condition)
    nats = precision * first.dimensions * math.log(2)
    of_plan = fold_purpose(key, "plan_pair")
    return estimator.plan_pair((first, second), chosen, precision=nats, key=of_plan, conditions=(one, other))
