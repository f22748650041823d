# SPDX-License-Identifier: Apache-2.0
"""The report of a classification: its scores, their errors, and the facts needed to judge them."""

from dataclasses import dataclass
from typing import Any

from vdmkit.arguments import table
from vdmkit.classification._beside import Beside, Exactly
from vdmkit.classification._calibration import Reliability
from vdmkit.classification._scores import ClassificationScores
from vdmkit.devices import Arithmetic, facts_of
from vdmkit.likelihood.report import count_of_images, on_trained_images


@dataclass(frozen=True)
class ClassificationReport:
    """Scores of Bayes' rule on test images, what they depend on, and other classifiers on the same images.

    `estimates` is the number of independent estimates of each image and label, and `evaluations` that of the network,
    of which each image and label has `evaluations_per_label`. `discretisation` is the error of a solver in bits/dim,
    None without a solver. `class_counts` are the numbers of training images, whose shares are the class frequencies.
    `held_out` is false if test images are copies or near copies of training images.
    """

    scores: ClassificationScores
    exact: Exactly | None
    beside: Beside | None
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
        """Returns the report as JSON values; null stands for numbers that are not finite."""
        return facts_of(self)

    def __str__(self) -> str:
        rows = [f"  {name:12}  {text}" for name, text in self._rows()]
        return "\n".join(
            [self._headline(), *rows, *_table(self.scores), *(f"  {remark}" for remark in self._caveats())]
        )

    def _repr_html_(self) -> str:
        return table(self._headline(), [*self._rows(), *(("", remark) for remark in self._caveats())])

    def _headline(self) -> str:
        one = self.scores
        what = f"{one.correct:,} of {one.images:,} images right"
        what += ", NOT HELD-OUT IMAGES" if self.held_out is False else ""
        return f"accuracy {one.accuracy:.4f} ({one.accuracy_low:.4f} to {one.accuracy_high:.4f}): {what}"

    def _rows(self) -> list[tuple[str, str]]:
        one, count = self.scores, count_of_images(self.scores.images, self.images_in_test_set)
        calibration = one.calibration
        return [
            ("Monte Carlo", self._undecided()),
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
            *self._exactly(),
            *self._others(),
            ("estimator", self.estimator),
            *([("solver", f"off by {self.discretisation:+.5f} bits/dim")] if self.discretisation is not None else []),
            ("network", f"{self.evaluations:,} evaluations: {self.evaluations_per_label:,.0f} an image and label"),
            ("images", f"{count} of {self.dataset}, {self.published or 'not the published data set'}"),
            ("labels", f"{self.labels}, with the class frequencies of {sum(self.class_counts):,} training images"),
            ("model", f"step {self.step:,}, {self.weights} weights, {self.arithmetic}"),
        ]

    def _undecided(self) -> str:
        one = self.scores
        if not one.undecided:
            return f"decides all images, by {self.estimates} estimates of each label"
        between = f"the accuracy could be {one.accuracy_least:.4f} to {one.accuracy_most:.4f}"
        return f"leaves {one.undecided:,} images undecided, by {self.estimates} estimates of each label: {between}"

    def _exactly(self) -> list[tuple[str, str]]:
        if self.exact is None:
            return []
        scores = f"accuracy {self.exact.accuracy:.4f}, log score {self.exact.log_score:.4f} by the exact likelihoods"
        off = f"probabilities differ by up to {self.exact.difference:.4f}, decisions on {self.exact.other_decisions:,}"
        return [("exact", scores), ("", f"{off} images")]

    def _others(self) -> list[tuple[str, str]]:
        one = self.beside
        if one is None:
            return []
        scores = f"accuracy {one.accuracy:.4f} ({one.accuracy_low:.4f} to {one.accuracy_high:.4f})"
        scores += f", log score {one.log_score:.4f} +/- {one.half_width_log_score:.4f}"
        only = (
            f"only the model is right on {one.only_model_right:,} images, only {one.name} on {one.only_other_right:,}"
        )
        return [("beside", f"{one.name}: {scores}"), ("", f"{only}; p = {one.p_value:.2g} for equal accuracy")]

    def _caveats(self) -> list[str]:
        copies = on_trained_images(self.test_images_trained_on, self.images_in_test_set, "accuracy")
        return [*copies, *self.remarks]


def _table(scores: ClassificationScores) -> list[str]:
    """Returns the reliability table."""
    return [f"  {'probability':14}{'images':>8}{'mean':>9}{'right':>9}   95%", *map(_line, scores.reliability)]


def _line(one: Reliability) -> str:
    interval = f"{one.accuracy_low:.4f} to {one.accuracy_high:.4f}"
    numbers = f"{one.images:8,}{one.confidence:9.4f}{one.accuracy:9.4f}"
    return f"  {f'{one.low:.1f} to {one.high:.1f}':14}{numbers}   {interval}"
