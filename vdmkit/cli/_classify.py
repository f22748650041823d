# SPDX-License-Identifier: Apache-2.0
"""`vdmkit classify`: compares all labels for each test image of a run by Bayes' rule."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vdmkit.cli.options import (
    AsJson,
    Checkpoint,
    Estimator,
    Grid,
    Kernel,
    Overrides,
    PluginFiles,
    SolverSteps,
    Step,
    Trust,
    of_estimator,
    run_to_measure,
    shorthands,
)
from vdmkit.cli.options import BoundSteps as Steps
from vdmkit.errors import RecipeError

if TYPE_CHECKING:
    from vdmkit.classification._bayes import Classification
    from vdmkit.classification._report import ClassificationReport
    from vdmkit.data.sources import Images
    from vdmkit.experiments.load import Run

Passes = Annotated[
    int, typer.Option("--passes", min=1, help="Passes of the estimator, each of two estimates of every label.")
]
Logistic = Annotated[
    bool, typer.Option("--logistic-regression", help="Also fit logistic regression to the training images' pixels.")
]


def classify(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    estimator: Estimator = None,
    steps: Steps = None,
    solver_steps: SolverSteps = None,
    kernel: Kernel = None,
    grid: Grid = None,
    passes: Passes = 4,
    logistic_regression: Logistic = False,
    step: Step = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Classify the test images of a run by their likelihoods given each label; its network must use labels."""
    named, of_bound = shorthands(estimator=estimator), of_estimator(steps, kernel, grid)
    run = run_to_measure(checkpoint, named, overrides, plugins, step, of_bound, solver_steps, trust=trust)
    _refuse_settings(run)
    from vdmkit.experiments.load import load_test, load_train

    test = load_test(run)
    report, found = _measure(run, load_train(run), test, passes, beside=logistic_regression)
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else str(report))
    _keep(run, test, report, found)


def _refuse_settings(run: "Run") -> None:
    """Raises RecipeError for settings of likelihoods that classification does not have."""
    from vdmkit.recipes.build import count_labels

    settings = run.recipe.likelihood
    count_labels(run.recipe, "classify")
    if settings.label is not None:
        raise RecipeError(
            f"likelihood.label = {settings.label}: classify tells the network every label. Remove this key."
        )
    if settings.precision:
        raise RecipeError("likelihood.precision: classify has none. Omit it, and give more --passes.")


def _measure(
    run: "Run", train: "Images", test: "Images", passes: int, *, beside: bool
) -> "tuple[ClassificationReport, Classification]":
    """Checks and classifies the images; returns the report and what it is made of."""
    import numpy as np

    from vdmkit.classification._classify import classify
    from vdmkit.classification._judge import report_on
    from vdmkit.conformance.recipe import check_measurement_of_recipe
    from vdmkit.data.identity import check_comparable, check_fits
    from vdmkit.experiments.load import read_trained_on
    from vdmkit.likelihood.log_likelihood import sample_of
    from vdmkit.likelihood.report import Subject
    from vdmkit.recipes.build import build_estimator, count_labels, labels_of

    recipe, settings, known, source = run.recipe, run.recipe.likelihood, read_trained_on(run), run.source
    model = run.weighted(settings.weights)
    check_fits(model, test)
    of_train, of_test = (labels_of(images, "classify") for images in (train, test))
    counts = np.bincount(of_train, minlength=count_labels(recipe, "classify"))
    remarks = check_comparable(known, test)
    findings = check_measurement_of_recipe(recipe, model.given({"label": of_test[0]}), test).refuse()
    estimator = build_estimator(recipe, test.levels)
    index = sample_of(len(test.pixels), settings.images or len(test.pixels))
    how = {"passes": passes, "batch_size": settings.batch_size, "index": index, "progress": "auto"}
    found = classify(model, test.pixels, frequencies=counts, key=run.key, estimator=estimator, **how)
    exact = source.distribution if source.labels_are_components else None
    of_run = recipe.seed, run.step, settings.weights
    subject = Subject(model, test, estimator, exact, *of_run, labels=of_test)
    of_report = {"beside": train if beside else None, "remarks": (*remarks, *findings.remarks)}
    return report_on(found, subject, known, counts, **of_report), found


def _keep(run: "Run", test: "Images", report: "ClassificationReport", found: "Classification") -> None:
    """Writes the report and every image's probabilities to the run folder, and prints their paths."""
    from vdmkit.experiments.measure import fingerprint_of
    from vdmkit.likelihood.report import name_of_result
    from vdmkit.report.metrics import write_result

    fingerprint = fingerprint_of(run, test, ["classify", report.estimates, report.class_counts])
    name = name_of_result(report.dataset, None, run.recipe.likelihood.estimator, fingerprint)
    of_images = {"index": found.index, "log_posterior": found.log_posterior, "undecided": found.undecided}
    left = write_result(run.folder.path / "classification", name, report.as_json(), of_images)
    print(left, file=sys.stderr)
