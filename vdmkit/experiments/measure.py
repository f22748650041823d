# SPDX-License-Identifier: Apache-2.0
"""Measurements of a run: the test bound, the likelihood, the audit, and the quality of samples.

- `evaluate` measures the bound that was trained.
- `measure_likelihood` estimates the likelihood of the test images, with everything that counts against it.
- `audit` compares all estimators on the same few images and checks that they are consistent with each other.
- `score_run` compares samples with the images of the recipe.

`fingerprint_of` gives 16 hexadecimal digits that identify everything the numbers of a measurement depend on.
"""

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from vdmkit import __version__
from vdmkit.conformance.checking import Findings
from vdmkit.conformance.recipe import check_measurement_of_recipe, check_model_of_recipe, remarks_on_labels
from vdmkit.data.identity import TrainedOn, check_comparable, check_fits, reasons_against
from vdmkit.data.sources import Images
from vdmkit.devices import arithmetic, packages, precisely
from vdmkit.errors import UntrustedError
from vdmkit.experiments.load import Run, load_test, load_train, read_trained_on
from vdmkit.io import write_results
from vdmkit.likelihood.consistency import Check, audit_as_json, gather, referee
from vdmkit.likelihood.log_likelihood import LogLikelihood, as_arrays, log_likelihood, sample_of
from vdmkit.likelihood.report import LikelihoodReport, Subject, name_of_result, report_on
from vdmkit.metrics.features import Extractor
from vdmkit.metrics.fid import Scores, score
from vdmkit.model import DiffusionModel
from vdmkit.progress import Kept, Progress
from vdmkit.randomness import fold_purpose
from vdmkit.recipes.build import build_estimator, build_evaluator, build_sampling, told_labels
from vdmkit.recipes.loading import overrides_between
from vdmkit.recipes.schema import Recipe, drawn_by, flat
from vdmkit.registry import Choice
from vdmkit.report.metrics import write_result
from vdmkit.schedules import check_increasing
from vdmkit.training.checkpoints import sha256_of_arrays

_MEASURED_BY = ("seed", "model.", "objective.", "likelihood.")  # recipe keys that the numbers depend on


def fingerprint_of(run: Run, test: Images, stage: object = 0, labels: Int[np.ndarray, " n"] | None = None) -> str:
    """Returns the fingerprint of a measurement of a run and its test images.

    Args:
        run: The run.
        test: The test images.
        stage: A JSON value that distinguishes this measurement from others of the run.
        labels: The label on which the network is conditioned for each image, if any.
    """
    facts = [
        {key: value for key, value in flat(run.recipe).items() if key.startswith(_MEASURED_BY)},
        run.plugins,
        packages(_packages_of(run.recipe)),
        run.step,
        sha256_of_arrays(run.weighted(run.recipe.likelihood.weights)),
        [test.identity.sha256, test.pixels.shape, test.levels],
        stage,
        asdict(arithmetic()),
        __version__,
        *([] if labels is None else [labels.tolist()]),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _packages_of(recipe: Recipe) -> set[str]:
    """Returns the plugin packages of the measured components; other installed packages do not affect the numbers."""
    parts = (*vars(recipe.model).values(), *vars(recipe.objective).values(), recipe.likelihood.estimator)
    chosen = [one.component for part in parts if isinstance(part, Choice) for one in part.nested()]
    return {component.origin for component in chosen if component.is_of_package}


Measured = tuple[LogLikelihood, LikelihoodReport]
_ALLOW = "--allow-untrusted prints the number, marked as untrusted."


@precisely  # the precision is part of the fingerprint
def measure_likelihood(
    run: Run, test: Images, *, plan: Any = None, compared_by: str = "", allow_untrusted: bool = False
) -> Measured:
    """Estimates -log P of the test images by the recipe's estimator, and writes the result to the run folder.

    Results of other estimators, images or plans have different names and are kept: see `name_of_result`. `plan` is one
    of the two plans of `plan_pair`, for the difference between two runs, and `compared_by` is the command that made it,
    which is recorded.

    Raises:
        DataError: the images differ from the model's in shape or levels, are fewer than 2, or lack the requested
            labels.
        RecipeError: the schedule is not increasing, the estimator cannot plan for a precision, or the label is out of
            range.
        UntrustedError: the number is not a likelihood, and `allow_untrusted` is false.
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
    left = write_result(run.folder.likelihoods, name, text, of_images)
    print(left, file=sys.stderr)
    # Deleted last: they are read again with --allow-untrusted after a refusal, or when a killed command is repeated.
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
        known: Records of the training images.
        step: Step of the checkpoint, for the record.
        findings: Problems of the model's components and remarks on them.
        seconds: Time limit; the report then covers the images measured so far.
        progress: As in `vdmkit.sample`.

    Raises:
        DataError: the images differ from the model's in shape or number of levels, or are all the same.
        RecipeError: the schedule is not increasing.
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
    """Returns the estimates and the report for a subject's test images.

    Keyword arguments are passed to `log_likelihood`.
    """
    key = jax.random.key(subject.seed)
    estimate = log_likelihood(subject.model, subject.test.pixels, key=key, estimator=subject.estimator, **how)
    return estimate, report_on(estimate, subject, known, problems=findings.problems, remarks=findings.remarks)


def _refuse(reasons: Sequence[str], advice: str) -> None:
    if reasons:
        raise UntrustedError(f"not a likelihood: {' '.join(reasons)} {advice}")


def evaluate_run(run: Run) -> LikelihoodReport:
    """Measures the bound of a run's test images by its evaluation settings.

    Raises:
        DataError: the images are missing, damaged, or not comparable with the training images.
        UntrustedError: a component fails the checks of its kind, or the number is not a likelihood.
    """
    test, known = load_test(run), read_trained_on(run)
    model = run.weighted(run.recipe.evaluation.weights)
    check_comparable(known, test)
    check_fits(model, test)
    findings = check_model_of_recipe(run.recipe, model, test.pixels).refuse()
    return evaluate(run.recipe, model, test, known, step=run.step, findings=findings, progress="auto")


_IMAGES = 64


@precisely
def audit(run: Run, test: Images) -> list[Check]:
    """Measures 64 images (or the recipe's `likelihood.images`), drawn at random, and writes RUN/audit.json."""
    settings = run.recipe.likelihood
    model = run.weighted(settings.weights)
    check_fits(model, test)
    for remark in check_comparable(read_trained_on(run), test):
        print(remark, file=sys.stderr)
    check_increasing(model.schedule)
    check_model_of_recipe(run.recipe, model, test.pixels, differentiated=True).refuse()
    index = sample_of(len(test.pixels), settings.images or _IMAGES)
    key = fold_purpose(jax.random.key(run.recipe.seed), "audit")
    checks = referee(gather(model, test, index, batch_size=settings.batch_size, key=key, progress="auto"))
    write_results(run.folder.path / "audit.json", audit_as_json(checks, arithmetic()))
    return checks


def score_run(run: Run, count: int, inception: Extractor | None = None) -> Scores:
    """Scores `count` samples with the recipe's sampler, seed and data; see `vdmkit.metrics.score`.

    Raises:
        DataError, NonFiniteError: as in `score`.
        UntrustedError: the images are not those of the run: see `load_test`.
        RecipeError: the recipe sets labels that the samples would not use.
    """
    recipe, config = run.recipe, build_sampling(run.recipe)
    test, train = load_test(run), load_train(run)
    how = {"drawn": drawn_by(recipe), "seed": recipe.seed, "inception": inception, "progress": "auto"}
    return score(run.weighted(recipe.evaluation.weights), config, count, test=test, train=train, **how)
