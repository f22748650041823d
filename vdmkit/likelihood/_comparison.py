# SPDX-License-Identifier: Apache-2.0
"""The report of a comparison: two likelihoods of the same images, their difference, and what would decide it."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from vdmkit.devices import finite
from vdmkit.errors import RecipeError
from vdmkit.likelihood._interval import Interval
from vdmkit.likelihood._report import LikelihoodReport


def check_same_estimator(first: str, second: str) -> None:
    """Raises RecipeError if two likelihoods are measured by different estimators, given by their descriptions."""
    if first != second:
        raise RecipeError(
            f"compare: the first is measured by {first}, and the second by {second}. "
            "Give --estimator, and --steps of a bound, for both."
        )


@dataclass(frozen=True)
class Comparison:
    """Two likelihoods of the same images by the same estimator, and the first minus the second, in bits/dim.

    Raises:
        RecipeError: the estimators are not the same.
    """

    first: LikelihoodReport
    second: LikelihoodReport
    difference: Interval

    def __post_init__(self) -> None:
        check_same_estimator(self.first.estimator, self.second.estimator)

    @property
    def error_on_these(self) -> float:
        """Returns the 95% half-width of the difference on these images: of Monte Carlo and of the solver."""
        return self.difference.half_width_monte_carlo + self.difference.half_width_solver

    @property
    def times_draws(self) -> float | None:
        """Returns how many times as many draws would decide the difference on these images; None if it is decided."""
        return times_to_decide(self.error_on_these, self.difference.value)

    @property
    def times_images(self) -> float | None:
        """Returns how many times as many images would decide it for others of the kind; None if it is decided."""
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
    """Returns by what factor a sample must grow for its half-width to reach the value; None if it is below it."""
    if abs(value) > half_width:
        return None
    return (half_width / abs(value)) ** 2 if value else math.inf
