# SPDX-License-Identifier: Apache-2.0
"""`vdmkit compare`: measures two runs on the same images with common random numbers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._component import Grid, Kernel, of_estimator
from vdmkit.cli._measured import Estimator, SolverSteps, Steps, run_to_measure, shorthands
from vdmkit.cli._options import AsJson, Overrides, PluginFiles, Trust

_OF_SECOND = "Override a key for the second run alone, such as likelihood.weights=raw. May be repeated."


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another, or the same with --second-set.")],
    overrides: Overrides,
    plugins: PluginFiles,
    of_second: Annotated[
        list[str] | None, typer.Option("--second-set", metavar="KEY=VALUE", show_default=False, help=_OF_SECOND)
    ] = None,
    estimator: Estimator = None,
    steps: Steps = None,
    solver_steps: SolverSteps = None,
    kernel: Kernel = None,
    grid: Grid = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure the difference of two runs in bits/dim, image by image, with its error and what would decide it."""
    named, of_bound = shorthands(estimator=estimator), of_estimator(steps, kernel, grid)
    of_steps = (of_bound, solver_steps)
    one = run_to_measure(first, named, overrides, plugins, None, *of_steps, trust=trust)
    # The seed of the draws: with the same, both estimates share their noise.
    shared = [*overrides, *(of_second or []), f"seed={one.recipe.seed}"]
    other = run_to_measure(second, named, shared, plugins, None, *of_steps, trust=trust)
    from vdmkit.assembly import build_estimator
    from vdmkit.likelihood import Comparison, check_same_estimator
    from vdmkit.likelihood import compare as paired
    from vdmkit.run import load_test, measure_likelihood

    both = [(run, load_test(run)) for run in (one, other)]
    # Before either is measured, which may take long.
    check_same_estimator(*(build_estimator(run.recipe, test.levels).describe(test.levels) for run, test in both))
    (first_estimate, first_report), (second_estimate, second_report) = (
        measure_likelihood(run, test) for run, test in both
    )
    found = Comparison(first_report, second_report, paired(first_estimate, second_estimate))
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else str(found))
