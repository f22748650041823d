# SPDX-License-Identifier: Apache-2.0
"""The report of a likelihood: the number, its errors, and the facts needed to judge it."""

import math
from dataclasses import dataclass
from typing import Any

from vdmkit.devices import Arithmetic, facts_of
from vdmkit.notebook import table


@dataclass(frozen=True)
class LikelihoodReport:
    """A bound on -log2 P in bits per dimension. Half-widths are those of 95% intervals.

    The Monte Carlo half-width is the error of the number relative to infinitely many draws on these images; the test
    set half-width is the error of these images' mean relative to that of the population. `discretisation` is the error
    of a solver's tolerance (None without a solver, NaN if a solve failed). `bpd_low` and `bpd_high` include Monte Carlo
    and the solver, on these images. `exact` is -log2 P if the distribution is known, and `exact_bound` the expectation
    of the bound if that is known. A number below `impossible_below` is not a likelihood (one false alarm in a million);
    it is minus infinity if the Monte Carlo error is too large to decide, and None if P is unknown. If `levels` is 0, P
    is a density. `evaluations` of the network include those of planning, as by a pilot, and of the solver's error;
    `evaluations_per_image` do not. If `are_draws`, each of these is one draw of the bound. `trusted` is false, with
    reasons, for a number that is not a likelihood; `held_out` is false if images are copies or near copies of training
    images. `label` is what the network was told of the images: "data" for their own labels, or one label for all; P is
    then that of an image given its label.
    """

    bpd: float
    bpd_low: float
    bpd_high: float
    half_width_monte_carlo: float
    half_width_test_set: float
    terms: dict[str, float]
    exact: float | None
    impossible_below: float | None
    exact_bound: float | None
    discretisation: float | None
    estimator: str
    evaluations: int
    evaluations_per_image: float
    evaluations_of_solver_error: int
    are_draws: bool
    levels: int
    images: int
    images_in_test_set: int
    distinct_images: int
    test_images_trained_on: int | None
    test_images_near_trained_on: int | None
    held_out: bool | None
    dataset: str
    label: int | str | None
    sha256: str
    published: str | None
    seed: int
    step: int
    weights: str
    arithmetic: Arithmetic
    trusted: bool
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the report as JSON values; null stands for numbers that are not finite, or hidden by Monte Carlo."""
        hidden = {} if self.half_width_test_set else {"half_width_test_set": None}
        return facts_of(self) | hidden

    def __str__(self) -> str:
        rows = [f"  {name:12}  {text}" for name, text in self._rows()]
        return "\n".join([self._headline(), *rows, *(f"  {caveat}" for caveat in self._caveats())])

    def _repr_html_(self) -> str:
        return table(self._headline(), [*self._rows(), *(("", caveat) for caveat in self._caveats())])

    def _headline(self) -> str:
        what = f"{'bits/dim' if self.levels else 'bits/dim of a density'} on these {self.images:,} images"
        what += ", NOT A TEST LIKELIHOOD" if self.held_out is False else ""
        what += "" if self.trusted else ", NOT A LIKELIHOOD"
        return f"{self.bpd:.4f} +/- {(self.bpd_high - self.bpd_low) / 2:.4f} {what}"

    def _rows(self) -> list[tuple[str, str]]:
        """Returns the facts below the headline: a name and a text each."""
        return [
            ("Monte Carlo", f"+/- {self.half_width_monte_carlo:.4f} (95%: what more draws would change)"),
            ("test set", self._test_set()),
            ("terms", " + ".join(f"{name} {value:.4f}" for name, value in self.terms.items())),
            *_row("exact", self.exact, "{:.4f}, the truth on these images"),
            *self._judged(),
            *_row("exact bound", self.exact_bound, "{:.4f}, from infinitely many draws"),
            *_row("solver", self.discretisation, self._solver()),
            ("estimator", self.estimator),
            ("network", f"{self.evaluations:,} evaluations: {', '.join(self._parts_of_evaluations())}"),
            ("images", f"{self._count()} of {self.dataset}, {self.published or 'not the published data set'}"),
            *self._labels(),
            ("model", f"step {self.step:,}, {self.weights} weights, {self.arithmetic}"),
            *(("reason", reason) for reason in self.reasons),
        ]

    def _labels(self) -> list[tuple[str, str]]:
        """Describes the labels that the network was told, if it was told any."""
        if self.label is None:
            return []
        told = "each image's own" if self.label == "data" else f"{self.label} for all images"
        return [("labels", f"{told}: log P(image | label)")]

    def _test_set(self) -> str:
        """Describes the error of the test set; 0 means that it is hidden by Monte Carlo."""
        if not self.half_width_test_set:
            return "hidden by Monte Carlo: more draws would show it"
        return f"+/- {self.half_width_test_set:.4f} (95%: what other images would change; not in the line above)"

    def _judged(self) -> list[tuple[str, str]]:
        """Describes the smallest possible number; the text does not depend on the measured one."""
        if self.impossible_below is None:
            return []
        if self.impossible_below == -math.inf:
            return [("", "Monte Carlo is too coarse to judge the number against it")]
        return [("", f"less than {self.impossible_below:.4f} is impossible, and would be refused")]

    def _solver(self) -> str:
        if self.discretisation is not None and math.isnan(self.discretisation):
            return "error not known: of the few images that it is measured on, one was not solved"
        return "off by {:+.5f}, by a finer solve of a few images"

    def _parts_of_evaluations(self) -> list[str]:
        of_image = f"{self.evaluations_per_image:,.1f}".removesuffix(".0")
        rest = self.evaluations - round(self.evaluations_per_image * self.images) - self.evaluations_of_solver_error
        parts = {f"{rest:,} to plan them": rest}
        parts[f"{self.evaluations_of_solver_error:,} for the solver's error"] = self.evaluations_of_solver_error
        return [f"{of_image}{' draws' * self.are_draws} an image", *(text for text, number in parts.items() if number)]

    def _count(self) -> str:
        return count_of_images(self.images, self.images_in_test_set)

    def _caveats(self) -> list[str]:
        copies = on_trained_images(self.test_images_trained_on, self.images_in_test_set, "likelihood")
        return [*copies, *self.remarks]


def count_of_images(images: int, in_test_set: int) -> str:
    """Returns how many images were measured, in words."""
    return f"{images:,} (drawn at random from {in_test_set:,})" if images < in_test_set else f"all {images:,}"


def on_trained_images(trained_on: int | None, in_test_set: int, what: str) -> list[str]:
    """Returns what is to be said of test images that the model was trained on; None is an unknown number of them."""
    if trained_on is None:
        return ["It is not known which images this model was trained on."]
    count = f"{trained_on:,} of the {in_test_set:,}"
    return [f"The model was trained on {count} images: not a test {what}."] if trained_on else []


def _row(name: str, value: float | None, text: str) -> list[tuple[str, str]]:
    return [] if value is None else [(name, text.format(value))]
