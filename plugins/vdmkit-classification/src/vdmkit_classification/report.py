# SPDX-License-Identifier: Apache-2.0
"""The report of a run's classification: scores, their errors, and the settings that they depend on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vdmkit.arguments import table
from vdmkit.devices import Arithmetic, facts_of
from vdmkit.experiments.labels import MeasuredLabels
from vdmkit.experiments.load import Run
from vdmkit_classification.bayes import Classification
from vdmkit_classification.scores import (
    Baseline,
    ClassificationScores,
    Reference,
    compare_with_baseline,
    compare_with_reference,
    logistic_regression,
    score,
)


@dataclass(frozen=True)
class ClassificationReport:
    """Scores of Bayes' rule on test images, their settings, and other classifiers on the same images.

    `estimates` is the number of independent estimates for each image and label. `evaluations` counts the network's
    evaluations in all, `evaluations_per_label` those for one image and label. `discretisation` is the error of an ODE
    solver in bits/dim, None without a solver. `class_counts` are the numbers of training images, which give the class
    frequencies. `held_out` is false if test images are copies or near copies of training images.
    """

    scores: ClassificationScores
    reference: Reference | None
    baseline: Baseline | None
    labels: int
    class_counts: tuple[int, ...]
    estimates: int
    evaluations: int
    evaluations_per_label: float
    discretisation: float | None
    estimator: str
    images_in_test_set: int
    test_images_trained_on: int | None
    held_out: bool | None
    dataset: str
    sha256: str
    published: str | None
    seed: int
    step: int
    weights: str
    arithmetic: Arithmetic
    remarks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values; numbers that are not finite become null."""
        return facts_of(self)

    def __str__(self) -> str:
        lines = [self._headline(), *(f"  {name:12}  {text}" for name, text in self._rows())]
        lines.append(f"  {'probability':14}{'images':>8}{'mean':>9}{'right':>9}   95%")
        for one in self.scores.reliability:
            numbers = f"{one.images:8,}{one.confidence:9.4f}{one.accuracy:9.4f}"
            interval = f"{one.accuracy_low:.4f} to {one.accuracy_high:.4f}"
            lines.append(f"  {f'{one.low:.1f} to {one.high:.1f}':14}{numbers}   {interval}")
        return "\n".join([*lines, *(f"  {remark}" for remark in self._caveats())])

    def _repr_html_(self) -> str:
        return table(self._headline(), [*self._rows(), *(("", remark) for remark in self._caveats())])

    def _headline(self) -> str:
        one = self.scores
        what = f"{one.correct:,} of {one.images:,} images right"
        what += ", NOT HELD-OUT IMAGES" if self.held_out is False else ""
        return f"accuracy {one.accuracy:.4f} ({one.accuracy_low:.4f} to {one.accuracy_high:.4f}): {what}"

    def _rows(self) -> list[tuple[str, str]]:
        one, calibration, total = self.scores, self.scores.calibration, self.images_in_test_set
        monte_carlo = f"decides all images, by {self.estimates} estimates of each label"
        if one.undecided:
            monte_carlo = f"leaves {one.undecided:,} images undecided, by {self.estimates} estimates of each label: "
            monte_carlo += f"the accuracy could be {one.accuracy_least:.4f} to {one.accuracy_most:.4f}"
        rows = [
            ("Monte Carlo", monte_carlo),
            (
                "log score",
                f"{one.log_score:.4f} +/- {one.half_width_log_score:.4f} nats, the mean log p(label | image)",
            ),
            ("", f"{one.monte_carlo_bias:+.4f} +/- {one.half_width_monte_carlo:.4f} of it by Monte Carlo"),
            ("", f"{one.log_score_of_frequencies:.4f} by the class frequencies alone"),
            (
                "calibration",
                f"error {calibration.error:.4f} ({calibration.low:.4f} to {calibration.high:.4f}); "
                f"right probabilities would give up to {calibration.if_calibrated:.4f}",
            ),
            ("confidence", f"{one.overconfidence:+.4f} +/- {one.half_width_overconfidence:.4f} above the accuracy"),
        ]
        if (exact := self.reference) is not None:
            off = f"probabilities differ by up to {exact.difference:.4f}, decisions on {exact.other_decisions:,} images"
            scores = f"accuracy {exact.accuracy:.4f}, log score {exact.log_score:.4f} by the exact likelihoods"
            rows += [("reference", scores), ("", off)]
        if (other := self.baseline) is not None:
            scores = f"accuracy {other.accuracy:.4f} ({other.accuracy_low:.4f} to {other.accuracy_high:.4f})"
            scores += f", log score {other.log_score:.4f} +/- {other.half_width_log_score:.4f}"
            only = f"only the model is right on {other.only_model_right:,} images, only {other.name} on "
            only += f"{other.only_baseline_right:,}; p = {other.p_value:.2g} for equal accuracy"
            rows += [("baseline", f"{other.name}: {scores}"), ("", only)]
        rows.append(("estimator", self.estimator))
        if self.discretisation is not None:
            rows.append(("solver", f"off by {self.discretisation:+.5f} bits/dim"))
        images = f"{one.images:,} (drawn at random from {total:,})" if one.images < total else f"all {one.images:,}"
        return [
            *rows,
            ("network", f"{self.evaluations:,} evaluations: {self.evaluations_per_label:,.0f} an image and label"),
            ("images", f"{images} of {self.dataset}, {self.published or 'not the published data set'}"),
            ("labels", f"{self.labels}, with the class frequencies of {sum(self.class_counts):,} training images"),
            ("model", f"step {self.step:,}, {self.weights} weights, {self.arithmetic}"),
        ]

    def _caveats(self) -> list[str]:
        copies, total = self.test_images_trained_on, self.images_in_test_set
        if copies is None:
            return ["It is not known which images this model was trained on.", *self.remarks]
        if copies:
            trained_on = f"The model was trained on {copies:,} of the {total:,} images: not a test accuracy."
            return [trained_on, *self.remarks]
        return list(self.remarks)


def report(run: Run, measured: MeasuredLabels, found: Classification, *, baseline: bool) -> ClassificationReport:
    """Reports the classification of a run's test images.

    Args:
        run: The run.
        measured: Its images and their label likelihoods.
        found: The classification by these likelihoods.
        baseline: Whether to fit logistic regression to the training images for comparison.
    """
    test, train, index = measured.test, measured.train, found.likelihoods.index
    labels, pixels = np.asarray(test.labels)[index], test.pixels[index]
    compared = None
    if baseline:
        fitted = logistic_regression(train.pixels[:], np.asarray(train.labels), pixels, test.levels)
        compared = compare_with_baseline("logistic regression", fitted, found, labels)
    distribution = run.source.distribution if run.source.labels_are_components else None
    solver = found.likelihoods.solver
    return ClassificationReport(
        scores=score(found, labels),
        reference=distribution and compare_with_reference(distribution, pixels, found, labels),
        baseline=compared,
        labels=len(found.frequencies),
        class_counts=tuple(measured.class_counts.tolist()),
        estimates=len(found.likelihoods.log_prob),
        evaluations=found.likelihoods.total_evaluations,
        evaluations_per_label=found.likelihoods.evaluations_per_label,
        discretisation=solver and solver.value,
        estimator=found.likelihoods.estimator,
        images_in_test_set=len(test.pixels),
        test_images_trained_on=measured.test_images_trained_on,
        held_out=measured.held_out,
        dataset=f"{test.identity.name}/{test.identity.split}",
        sha256=test.identity.sha256,
        published=test.identity.published,
        seed=run.recipe.seed,
        step=run.step,
        weights=run.recipe.likelihood.weights,
        arithmetic=found.likelihoods.arithmetic,
        remarks=measured.remarks,
    )
