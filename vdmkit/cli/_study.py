# SPDX-License-Identifier: Apache-2.0
"""`vdmkit study`: studies schedules and step grids of a trained run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step, Trust
from vdmkit.errors import Interrupted, RecipeError

Counts = Annotated[str, typer.Option("--steps", metavar="T,T,...", help="Numbers of steps.")]
Images = Annotated[
    int, typer.Option("--images", min=2, help="Number of training images, and of test images; or all there are.")
]
Nodes = Annotated[
    int,
    typer.Option("--nodes", min=11, help="Number of gammas to measure at; with fewer, the +/- understates the error."),
]
Fit = Annotated[
    Path | None, typer.Option("--fit", metavar="NEW", help="Write a run of the same model with a fitted schedule.")
]


def study(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    counts: Counts = "1,2,5,10,20,25,50,100,250",
    images: Images = 256,
    nodes: Nodes = 61,
    fit: Fit = None,
    as_json: AsJson = False,
) -> None:
    """Measure the effect of schedules, step grids and reverse kernels on a run, and save the best of them."""
    from vdmkit.run import RunFolder, check_fit, fit_schedule, leave_study, load_run, study_run
    from vdmkit.study import text_of_study

    run = load_run(checkpoint, overrides, plugins, step, trust=trust)
    if fit:
        check_fit(run, RunFolder(fit))
    try:
        found, kept = study_run(run, images=images, nodes=nodes, counts=_counts(counts))
        left = leave_study(found, run.folder.schedule)
        fitted = fit_schedule(run, found.train, found.test, RunFolder(fit)) if fit else None
        kept.clear()
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What was measured so far is kept: to go on, run the same command again.") from None
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else text_of_study(found))
    for path in left:
        typer.echo(f"written to {path}", err=True)
    if fitted:
        typer.echo(f"\n{fit}: the same model with a fitted schedule: {fitted}", err=as_json)


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        counts = ()
    if not counts or not 1 <= counts[0] <= counts[-1] <= 999:
        raise RecipeError(f"--steps {text}: expected numbers from 1 to 999, with commas between.")
    return counts
