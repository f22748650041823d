# SPDX-License-Identifier: Apache-2.0
"""The likelihood of a run's test images, with everything that speaks against it."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import jax

from vdmkit.assembly import build_estimator, build_evaluator, told_labels
from vdmkit.checkpoint import sha256_of_arrays
from vdmkit.data import Images, TrainedOn, check_fits, reasons_against
from vdmkit.devices import precisely
from vdmkit.errors import UntrustedError
from vdmkit.likelihood import (
    LikelihoodReport,
    LogLikelihood,
    Subject,
    as_arrays,
    log_likelihood,
    name_of_result,
    report_on,
    sample_of,
)
from vdmkit.model import DiffusionModel
from vdmkit.progress import Kept, Progress
from vdmkit.recipe import Recipe, overrides_between
from vdmkit.report import leave_result
from vdmkit.run._fingerprint import fingerprint_of
from vdmkit.run._load import Run
from vdmkit.run._trained_on import read_trained_on
from vdmkit.testing import Findings, check_measurement_of_recipe, remarks_on_labels

Measured = tuple[LogLikelihood, LikelihoodReport]
_ALLOW = "--allow-untrusted prints the number, marked as untrusted."


@precisely  # what was measured before is named by the precision too
def measure_likelihood(
    run: Run, test: Images, *, plan: Any = None, compared_by: str = "", allow_untrusted: bool = False
) -> Measured:
    """Estimates -log P of the test images by the recipe's estimator, and writes the result to the run folder.

    Results of other estimators, images or plans have other names and remain there: see `name_of_result`. `plan` is one
    of `plan_pair`, for the difference from another run, and `compared_by` the command that made it, which is kept.

    Raises:
        DataError: the images differ from the model's in shape or levels, are fewer than 2, or lack the wanted labels.
        RecipeError: the schedule does not rise, the estimator cannot plan for a precision, or the network does not know
            the label.
        UntrustedError: the number is not a likelihood, and `allow_untrusted` was not given.
    """
    settings, recipe, known = run.recipe.likelihood, run.recipe, read_trained_on(run)
    model = run.weighted(settings.weights)
    check_fits(model, test)
    if not allow_untrusted:
        _refuse(reasons_against(known, test)[0], _ALLOW)
    labels = told_labels(recipe, test)
    condition = {} if labels is None else {"label": labels}
    findings = check_measurement_of_recipe(recipe, model.given({name: one[0] for name, one in condition.items()}), test)
    if not allow_untrusted:
        findings.refuse()
    estimator, planned = build_estimator(recipe, test.levels), sha256_of_arrays(plan)

    def kept(stage: int) -> Kept:
        return Kept(run.folder.unfinished_likelihood / fingerprint_of(run, test, [stage, planned], labels))

    distribution = run.source.distribution if labels is None or run.source.labels_are_components else None
    of_run = recipe.seed, run.step, settings.weights
    subject = Subject(model, test, estimator, distribution, *of_run, settings.label, labels)
    estimate, report = _measure(
        subject,
        known,
        findings if settings.label is not None else findings + remarks_on_labels(recipe),
        condition=condition,
        precision=settings.precision,
        batch_size=settings.batch_size,
        index=sample_of(len(test.pixels), settings.images or len(test.pixels)),
        plan=plan,
        kept=kept,
        progress="auto",
    )
    if not allow_untrusted:
        unfinished = run.folder.unfinished_likelihood
        by = f" What was measured is kept for that in {unfinished}; or delete it." if unfinished.exists() else ""
        _refuse(report.reasons, _ALLOW + by)
    found = fingerprint_of(run, test, planned, labels)
    name = name_of_result(report.dataset, report.label, settings.estimator, found)
    overrides = overrides_between(run.read_recipe(()), recipe, "likelihood.", "data.", "seed")
    facts = {"index": estimate.index, "nats": -estimate.log_prob, "standard_error": estimate.standard_error}
    of_images = {"overrides": overrides, **facts, **as_arrays(estimate.estimates)}
    text = report.as_json() | ({"compared_by": compared_by} if compared_by else {})
    left = leave_result(run.folder.likelihoods, name, text, of_images)
    print(left, file=sys.stderr)
    # Only now: --allow-untrusted after a refusal, or a repeated command after a kill, reads them.
    kept(0).clear()
    return estimate, report


def evaluate(
    recipe: Recipe,
    model: DiffusionModel,
    test: Images,
    known: TrainedOn,
    *,
    step: int,
    findings: Findings | None = None,
    seconds: float = math.inf,
    progress: Progress = None,
) -> LikelihoodReport:
    """Returns the report at the end of a run and of `vdmkit evaluate`, by the recipe's evaluation settings and seed.

    Args:
        recipe: The recipe.
        model: The trained model.
        test: The test images.
        known: What is known of the training images.
        step: Step of the checkpoint, for the record.
        findings: Problems and remarks on the model's components.
        seconds: Time limit; the report is then of the images done so far.
        progress: As in `vdmkit.sample`.

    Raises:
        DataError: the images differ from the model's in shape or number of levels, or are all the same.
        RecipeError: the schedule does not rise.
        UntrustedError: the number is not a likelihood.
    """
    check_fits(model, test)
    settings, estimator, distribution = recipe.evaluation, build_evaluator(recipe), recipe.data.build().distribution
    subject = Subject(model, test, estimator, distribution, recipe.seed, step, settings.weights)
    how = {"batch_size": settings.batch_size, "seconds": seconds, "progress": progress}
    _, report = _measure(subject, known, (findings or Findings()) + remarks_on_labels(recipe), **how)
    _refuse(report.reasons, "What was trained is kept.")
    return report


def _measure(subject: Subject, known: TrainedOn, findings: Findings, **how: Any) -> Measured:
    """Returns the estimate of a subject's test images, and its report. `how` is passed to `log_likelihood`."""
    key = jax.random.key(subject.seed)
    estimate = log_likelihood(subject.model, subject.test.pixels, key=key, estimator=subject.estimator, **how)
    return estimate, report_on(estimate, subject, known, problems=findings.problems, remarks=findings.remarks)


def _refuse(reasons: Sequence[str], advice: str) -> None:
    if reasons:
        raise UntrustedError(f"not a likelihood: {' '.join(reasons)} {advice}")
