# SPDX-License-Identifier: Apache-2.0
"""`vdmkit classify`: compares all labels for each test image of a run by Bayes' rule. Importing it loads no JAX."""

import json
import sys
from typing import Annotated

import typer

from vdmkit.cli import AsJson, Checkpoint, Overrides, PluginFiles, Step, Trust, stoppable
from vdmkit.cli.options import grid_option, of_estimator, run_to_measure, shorthands

Estimator = Annotated[str | None, typer.Option("--estimator", help="bound, ode or importance. Default: the recipe's.")]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="T of a bound; 0 is continuous time. Default: as trained (importance: then 100)."),
]
SolverSteps = Annotated[
    int | None, typer.Option("--solver-steps", min=1, help="Constant steps of the ode. Default: its tolerances choose.")
]
Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="NAME|FILE.toml",
        help="Reverse kernel of T steps, as in `vdmkit likelihood`. Default: that of training if T is, or if it has "
        "learned variances; else gaussian.",
    ),
]
Grid = Annotated[str | None, grid_option("that of training if T is, or even in t")]
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
    from vdmkit.experiments.labels import measure_labels
    from vdmkit.report import write_result
    from vdmkit_classification.bayes import Classification, normalize
    from vdmkit_classification.report import report

    measured = measure_labels(run, passes)
    found = Classification(measured.likelihoods, normalize(measured.class_counts))
    result = report(run, measured, found, baseline=logistic_regression)
    typer.echo(json.dumps(result.as_json(), indent=2) if as_json else str(result))
    of_images = {"index": measured.likelihoods.index, "log_posterior": found.log_posterior}
    of_images["undecided"] = found.undecided
    folder = run.folder.path / "classification"
    print(write_result(folder, measured.name, result.as_json(), of_images), file=sys.stderr)


command = stoppable(classify, "Nothing was written. Run the same command again to start over.")
