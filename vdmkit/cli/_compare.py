# SPDX-License-Identifier: Apache-2.0
"""`vdmkit compare`: measures two runs on the same images with common random numbers."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdmkit.cli._component import Grid, Kernel, of_estimator
from vdmkit.cli._measured import Estimator, SolverSteps, Steps, run_to_measure, shorthands
from vdmkit.cli._options import AsJson, Overrides, PluginFiles, Trust

if TYPE_CHECKING:
    from vdmkit.data import Images
    from vdmkit.run import Run

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
    from vdmkit.likelihood import Comparison
    from vdmkit.likelihood import compare as paired
    from vdmkit.run import load_test, measure_likelihood

    both = [(run, load_test(run)) for run in (one, other)]
    (first_estimate, first_report), (second_estimate, second_report) = (
        measure_likelihood(run, test, plan=plan, compared_by=shlex.join(["vdmkit", *sys.argv[1:]]))
        for (run, test), plan in zip(both, _plans(*both), strict=True)
    )
    found = Comparison(first_report, second_report, paired(first_estimate, second_estimate))
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else str(found))


def _plans(first: "tuple[Run, Images]", second: "tuple[Run, Images]") -> tuple[Any, Any]:
    """Returns what `plan_pair` prepares. Raises an error if the two do not compare, before either is measured."""
    from vdmkit.assembly import build_estimator, check_same_measurement, told_labels
    from vdmkit.likelihood import plan_pair, sample_of

    both = first, second
    check_same_measurement(*((run.recipe, test) for run, test in both))
    labels = [told_labels(run.recipe, test) for run, test in both]
    told = [None if of_run is None else {"label": of_run} for of_run in labels]
    models = [run.weighted(run.recipe.likelihood.weights) for run, _ in both]
    (run, test), settings = first, first[0].recipe.likelihood
    return plan_pair(
        models[0],
        models[1],
        test.pixels,
        key=run.key,
        estimator=build_estimator(run.recipe, test.levels),
        conditions=(told[0], told[1]),
        precision=settings.precision,
        index=sample_of(len(test.pixels), settings.images or len(test.pixels)),
    )
