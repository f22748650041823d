# SPDX-License-Identifier: Apache-2.0
"""`vdmkit likelihood`: bits per dimension that can be trusted."""

import json
from typing import Annotated

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step

Estimator = Annotated[str | None, typer.Option("--estimator", help="bound, ode or importance. Default: the recipe's.")]
Steps = Annotated[int | None, typer.Option("--steps", help="T of the bound; 0 is continuous time.")]
Precision = Annotated[
    float | None, typer.Option("--precision", help="Go on to this 95% Monte Carlo half-width, in bits/dim.")
]
Untrusted = Annotated[bool, typer.Option("--allow-untrusted", help="Print even what is not a likelihood, marked.")]


def likelihood(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    estimator: Estimator = None,
    steps: Steps = None,
    precision: Precision = None,
    step: Step = None,
    allow_untrusted: Untrusted = False,
    as_json: AsJson = False,
) -> None:
    """Measure -log2 P of the test images of a run: the estimator, its error, and what it was measured on."""
    from vdmkit.run import load_run, measure_likelihood

    given = {"estimator.name": estimator, "estimator.steps": steps, "precision": precision}
    shorthands = [f"likelihood.{key}={value}" for key, value in given.items() if value is not None]
    run = load_run(checkpoint, [*shorthands, *overrides], plugins, step)
    test = run.recipe.data.build().load("test")
    report = measure_likelihood(run, test, allow_untrusted=allow_untrusted)
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else str(report))
