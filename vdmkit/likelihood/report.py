# SPDX-License-Identifier: Apache-2.0
"""The report of a likelihood: the number in bits/dim, its errors, and the facts needed to judge it.

`report_on` makes the report from estimates, with reasons not to trust the number, and remarks. `name_of_result` gives
different names to different measurements.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vdmkit.arguments import table
from vdmkit.data.identity import TrainedOn, copies_of, fingerprints_of, groups_of, on_copies, reasons_against
from vdmkit.data.sources import Images, select
from vdmkit.devices import Arithmetic, facts_of
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.estimator import AbstractEstimator
from vdmkit.likelihood.exact import below_the_truth, exact_bound, impossible_below
from vdmkit.likelihood.intervals import remark_on_few
from vdmkit.likelihood.log_likelihood import LogLikelihood
from vdmkit.losses.bound import bits_per_dim
from vdmkit.model import DiffusionModel
from vdmkit.registry import Choice
from vdmkit.toy_data import AbstractDistribution


@dataclass(frozen=True)
class LikelihoodReport:
    """A bound on -log2 P in bits per dimension. Half-widths are those of 95% intervals.

    Attributes:
        bpd: Mean over the images.
        bpd_low: `bpd` minus the errors of Monte Carlo and of the solver.
        bpd_high: `bpd` plus the errors of Monte Carlo and of the solver.
        half_width_monte_carlo: Error relative to infinitely many draws on these images.
        half_width_test_set: Error of these images' mean relative to that of the population.
        terms: Mean of each term by name.
        exact: -log2 P of these images if their distribution is known.
        impossible_below: Value below which the number is not a likelihood (one false alarm in a million). It is minus
            infinity if the Monte Carlo error is too large to decide, and None if P is unknown.
        exact_bound: Expectation of the bound if it is known.
        discretisation: Error due to a solver's tolerance; None without a solver, NaN if a solve failed.
        evaluations: Evaluations of the network, including those for planning (a pilot) and for the solver's error.
        evaluations_per_image: Evaluations for one image, without planning and the solver's error.
        are_draws: Whether each evaluation is one draw of the bound.
        levels: Number of levels; if it is 0, P is a density.
        held_out: False if images are copies or near copies of training images.
        label: Labels that the network is conditioned on: "data" for each image's own, or one label for all images. P is
            then that of an image given its label.
        trusted: False, with `reasons`, for a number that is not a likelihood.
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
        """Returns the report as JSON values; numbers that are not finite, or hidden by Monte Carlo, become null."""
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
        """Returns the name and text of each fact below the headline."""
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
        """Describes the labels that the network is conditioned on, if any."""
        if self.label is None:
            return []
        labels = "each image's own" if self.label == "data" else f"{self.label} for all images"
        return [("labels", f"{labels}: log P(image | label)")]

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
    """Describes how many images were measured."""
    return f"{images:,} (drawn at random from {in_test_set:,})" if images < in_test_set else f"all {images:,}"


def on_trained_images(trained_on: int | None, in_test_set: int, what: str) -> list[str]:
    """Returns the caveat about test images that the model was trained on; None means that their number is unknown."""
    if trained_on is None:
        return ["It is not known which images this model was trained on."]
    count = f"{trained_on:,} of the {in_test_set:,}"
    return [f"The model was trained on {count} images: not a test {what}."] if trained_on else []


def _row(name: str, value: float | None, text: str) -> list[tuple[str, str]]:
    return [] if value is None else [(name, text.format(value))]


_TERMS = ("prior", "reconstruction", "diffusion", "volume", "dequantisation")  # printed first, in this order


@dataclass(frozen=True)
class Subject:
    """The subject of a report: a model (of `step` and `weights`), test images, an estimator, and a seed.

    `distribution` is the distribution of the images, or None if it is unknown. If the network is conditioned on labels,
    `labels` holds that of each image, and the components of `distribution` correspond to the labels. `label` is then
    "data", or the label used for all images.
    """

    model: DiffusionModel
    test: Images
    estimator: AbstractEstimator[Any]
    distribution: AbstractDistribution | None
    seed: int
    step: int
    weights: str
    label: int | str | None = None
    labels: Int[np.ndarray, " n"] | None = None

    def exact_nats(self, index: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"] | None:
        """Returns -log P of images, given their labels if the network is conditioned on them; None if it is unknown."""
        distribution, pixels = self.distribution, self.test.pixels[index]
        if distribution is None or self.labels is None:
            return None if distribution is None else distribution.nats(pixels)
        nats, labels = np.empty(len(index)), self.labels[index]
        for label in np.unique(labels):
            if (component := distribution.component(int(label))) is None:
                return None
            nats[labels == label] = component.nats(pixels[labels == label])
        return nats


def report_on(
    estimate: LogLikelihood,
    subject: Subject,
    known: TrainedOn,
    *,
    problems: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> LikelihoodReport:
    """Returns the report of an estimate, in bits/dim.

    Args:
        estimate: The estimates.
        subject: The model, the images and the estimator.
        known: Record of the training images.
        problems: Problems of the model's components, because of which the number is not trusted.
        remarks: Sentences to print below the number.
    """
    test, fingerprints, d = subject.test, fingerprints_of(subject.test), subject.model.dimensions
    copies, groups = (
        copies_of(fingerprints, known.fingerprints),
        groups_of(fingerprints, known.fingerprints)[estimate.index],
    )
    mean, solver = replace(estimate, groups=groups).mean(), estimate.solver
    against, remarks_on_data = reasons_against(known, test)
    unsolved = estimate.reasons() if not (problems or against) else replace(estimate, solver=None).reasons()
    reasons = [*problems, *against, *unsolved]
    exact, lowest = _truth(estimate, subject)
    if copies.exact != 0 or copies.held_out is False:
        lowest = None
    if exact is not None and lowest is not None:
        reasons += below_the_truth(mean.value, exact, lowest, test.levels)
    on_images, width = len(estimate.index), mean.half_width_monte_carlo + mean.half_width_solver
    terms, names = estimate.terms, dict.fromkeys([*_TERMS, *estimate.terms])
    return LikelihoodReport(
        bpd=mean.value,
        bpd_low=mean.value - width,
        bpd_high=mean.value + width,
        half_width_monte_carlo=mean.half_width_monte_carlo,
        half_width_test_set=mean.half_width_test_set,
        terms={name: bits_per_dim(float(terms[name].mean()), d) for name in names if name in terms},
        exact=exact,
        impossible_below=lowest,
        exact_bound=exact_bound(subject.model, select(test.pixels, estimate.index), subject.estimator),
        discretisation=solver and solver.value,
        estimator=estimate.estimator,
        evaluations=estimate.total_evaluations,
        evaluations_per_image=float(estimate.evaluations.mean()),
        evaluations_of_solver_error=solver.evaluations if solver else 0,
        are_draws=isinstance(subject.estimator, VariationalBound),
        levels=test.levels,
        images=on_images,
        images_in_test_set=len(test.pixels),
        distinct_images=len(np.unique(groups)),
        test_images_trained_on=copies.exact,
        test_images_near_trained_on=copies.near,
        held_out=copies.held_out,
        dataset=f"{test.identity.name}/{test.identity.split}",
        label=subject.label,
        sha256=test.identity.sha256,
        published=test.identity.published,
        seed=subject.seed,
        step=subject.step,
        weights=subject.weights,
        arithmetic=estimate.arithmetic,
        trusted=not reasons,
        reasons=tuple(reasons),
        remarks=(
            *on_copies(copies, groups, len(fingerprints)),
            *remarks_on_data,
            *remarks,
            *remark_on_few(estimate.nats),
        ),
    )


def _truth(estimate: LogLikelihood, subject: Subject) -> tuple[float | None, float | None]:
    """Returns -log2 P of the images if it is known, and the smallest value a likelihood can have, in bits/dim."""
    d, nats = estimate.dimensions, subject.exact_nats(estimate.index)
    if nats is None:
        return None, None
    if subject.label not in (None, "data"):  # the images are not drawn from P(image | label)
        return bits_per_dim(float(nats.mean()), d), None
    lowest = bits_per_dim(impossible_below(nats, estimate.nats, subject.estimator), d)
    return bits_per_dim(float(nats.mean()), d), lowest - (estimate.solver.half_width if estimate.solver else 0.0)


_LONGEST = 80  # characters of the estimator's part; the fingerprint distinguishes truncated names


def name_of_result(dataset: str, label: int | str | None, estimator: Choice, fingerprint: str) -> str:
    """Returns a name for a measurement, such as `digits-test_label-data_bound-steps-10_3f9a1c20`.

    Args:
        dataset: Name and split of the images, such as digits/test.
        label: Label that the network is conditioned on, "data" for each image's own, or None.
        estimator: The recipe's choice; settings that differ from the default are in the name.
        fingerprint: Fingerprint, in hexadecimal, of everything that the number depends on.
    """
    labels = [] if label is None else [f"label-{label}"]
    return "_".join([_words(dataset), *labels, _words(str(estimator))[:_LONGEST], fingerprint[:8]])


def _words(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
