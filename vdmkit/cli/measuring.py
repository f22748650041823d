# SPDX-License-Identifier: Apache-2.0
"""Commands that measure a trained run.

- `evaluate` measures the test bound.
- `likelihood` measures the likelihood of the test images, with its error.
- `compare` measures two runs on the same images with common random numbers.
- `quality` compares samples with real images.
- `sample` draws images.
- `study` studies schedules and step grids.
- `report` writes a self-contained HTML page about one or several runs.
"""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdmkit.cli.options import (
    AsJson,
    BoundSteps,
    Checkpoint,
    Estimator,
    Grid,
    Kernel,
    Overrides,
    PluginFiles,
    SolverSteps,
    Step,
    Steps,
    Trust,
    as_override,
    component,
    of_estimator,
    run_to_measure,
    shorthands,
    steps_of,
    with_steps,
)
from vdmkit.cli.processes import stoppable
from vdmkit.errors import Interrupted, RecipeError, UntrustedError

if TYPE_CHECKING:
    from vdmkit.data.sources import Images
    from vdmkit.experiments.load import Run
    from vdmkit.likelihood.consistency import Check


def evaluate(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Report the test bpd of a run, with its error bar and its terms."""
    from vdmkit.experiments.load import load_run
    from vdmkit.experiments.measure import evaluate_run
    from vdmkit.io import write_results
    from vdmkit.multihost import own_folder

    run = load_run(own_folder(checkpoint), overrides, plugins, step, trust=trust)
    evaluation = evaluate_run(run)
    typer.echo(json.dumps(evaluation.as_json(), indent=2) if as_json else str(evaluation))
    write_results(run.folder.evaluation, evaluation.as_json())  # after printing: the folder may be read-only
    typer.echo(f"written to {run.folder.evaluation}", err=True)


Precision = Annotated[float | None, typer.Option("--precision", help="Wanted 95% Monte Carlo half-width, in bits/dim.")]
Label = Annotated[
    str | None,
    typer.Option("--label", metavar="data|N", help="Measure images given their labels, or given N. Default: no label."),
]
Untrusted = Annotated[
    bool, typer.Option("--allow-untrusted", help="Also print a number that is not a likelihood, marked.")
]
Audit = Annotated[bool, typer.Option("--audit", help="Run all estimators on a few images, and check their relations.")]
_NOT_OF_AUDIT = ("likelihood.estimator", "likelihood.precision", "likelihood.label")


def likelihood(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    estimator: Estimator = None,
    steps: BoundSteps = None,
    solver_steps: SolverSteps = None,
    kernel: Kernel = None,
    grid: Grid = None,
    precision: Precision = None,
    label: Label = None,
    step: Step = None,
    trust: Trust = False,
    audit: Audit = False,
    allow_untrusted: Untrusted = False,
    as_json: AsJson = False,
) -> None:
    """Measure -log2 P of the test images of a run, with its error."""
    from vdmkit.experiments.load import load_test
    from vdmkit.experiments.measure import measure_likelihood

    label_or_class = int(label) if label and label.isdecimal() else label
    named = shorthands(estimator=estimator, precision=precision, label=label_or_class)
    of_bound = of_estimator(steps, kernel, grid)
    run = run_to_measure(checkpoint, named, overrides, plugins, step, of_bound, solver_steps, trust=trust)
    test = load_test(run)
    if audit:
        if named or of_bound or solver_steps or any(key.startswith(_NOT_OF_AUDIT) for key in overrides):
            raise RecipeError("--audit runs its own estimators: omit the estimator, its steps, --precision, --label.")
        return _audit(run, test, as_json)
    _, report = measure_likelihood(run, test, allow_untrusted=allow_untrusted)
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else str(report))


def _audit(run: "Run", test: "Images", as_json: bool) -> None:
    """Prints every check; if one fails, the exit code is 4."""
    from vdmkit.devices import arithmetic, precisely
    from vdmkit.experiments.measure import audit
    from vdmkit.likelihood.consistency import audit_as_json

    measured_in = precisely(arithmetic)()
    checks = stoppable(audit, "An audit keeps nothing. Run the same command again.")(run, test)
    if as_json:
        typer.echo(json.dumps(audit_as_json(checks, measured_in), indent=2))
    else:
        typer.echo(f"{_table(checks)}\nmeasured in {measured_in}")
    failed = sum(check.verdict == "fails" for check in checks)
    if failed:
        raise UntrustedError(f"the audit failed: {failed} of {len(checks)} checks. These numbers are not likelihoods.")


def _table(checks: list["Check"]) -> str:
    verdicts = [check.verdict for check in checks]
    unknown = sum(not _known(check) for check in checks)
    return "\n".join(
        [
            "Differences in bits/dim, unless stated. A check fails if the difference is outside of its range by twice",
            "its 95% error, and passes if it is consistent with the range and known to 0.05.",
            f"{'':10} {'':64} {'difference':>10}   {'95%':7} allowed",
            *(_line(check) for check in checks),
            f"{verdicts.count('passes')} pass, {verdicts.count('fails')} fail; of {unknown} too little is known"
            f"{', which more images tell: --set likelihood.images=N' if unknown else ''}.",
        ]
    )


def _known(check: "Check") -> bool:
    return check.verdict in ("passes", "fails")


def _line(check: "Check") -> str:
    verdict = check.verdict if _known(check) else "not known"
    error = f"{check.half_width:.5f}" if check.half_width else "exact"
    allowed = f"above {check.low + 0:g}" if check.high == float("inf") else f"{check.low + 0:g} to {check.high:g}"
    return f"{verdict:10} {check.claim:64} {check.difference + 0:+10.5f}   {error:7} {allowed}"


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
    steps: BoundSteps = None,
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
    # With the same seed both estimates use common random numbers.
    shared = [*overrides, *(of_second or []), f"seed={one.recipe.seed}"]
    other = run_to_measure(second, named, shared, plugins, None, *of_steps, trust=trust)
    from vdmkit.experiments.load import load_test
    from vdmkit.experiments.measure import measure_likelihood
    from vdmkit.likelihood.comparison import Comparison
    from vdmkit.likelihood.comparison import compare as paired

    both = [(run, load_test(run)) for run in (one, other)]
    (first_estimate, first_report), (second_estimate, second_report) = (
        measure_likelihood(run, test, plan=plan, compared_by=shlex.join(["vdmkit", *sys.argv[1:]]))
        for (run, test), plan in zip(both, _plans(*both), strict=True)
    )
    found = Comparison(first_report, second_report, paired(first_estimate, second_estimate))
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else str(found))


def _plans(first: "tuple[Run, Images]", second: "tuple[Run, Images]") -> tuple[Any, Any]:
    """Returns the plans of `plan_pair`. Raises an error before any measurement if the two runs are not comparable."""
    from vdmkit.likelihood.comparison import plan_pair
    from vdmkit.likelihood.log_likelihood import sample_of
    from vdmkit.recipes.build import build_estimator, told_labels
    from vdmkit.recipes.checks import check_same_measurement

    both = first, second
    check_same_measurement(*((run.recipe, test) for run, test in both))
    labels = [told_labels(run.recipe, test) for run, test in both]
    conditions = [None if of_run is None else {"label": of_run} for of_run in labels]
    models = [run.weighted(run.recipe.likelihood.weights) for run, _ in both]
    (run, test), settings = first, first[0].recipe.likelihood
    return plan_pair(
        models[0],
        models[1],
        test.pixels,
        key=run.key,
        estimator=build_estimator(run.recipe, test.levels),
        conditions=(conditions[0], conditions[1]),
        precision=settings.precision,
        index=sample_of(len(test.pixels), settings.images or len(test.pixels)),
    )


Number = Annotated[int, typer.Option("-n", min=6, help="Number of samples, and of test images.")]
Inception = Annotated[
    Path | None,
    typer.Option("--inception", metavar="FILE", help="Inception's weights in torch-fidelity's format; adds FID."),
]


def quality(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    number: Number = 200,
    steps: Steps = None,
    inception: Inception = None,
    as_json: AsJson = False,
) -> None:
    """Compare samples with test images by features that need no download, beside the scores of real images."""
    overrides = with_steps(overrides, steps)
    if inception and inception.is_dir():
        raise RecipeError(f"--inception {inception}: a folder. Give the file of weights inside it.")
    from vdmkit.experiments.load import load_run
    from vdmkit.experiments.measure import score_run
    from vdmkit.metrics.features import load_inception

    extractor = load_inception(inception) if inception else None
    scores = score_run(load_run(checkpoint, overrides, plugins, step, trust=trust), number, extractor)
    typer.echo(json.dumps(scores.as_json(), indent=2) if as_json else str(scores))


SampleCount = Annotated[int, typer.Option("-n", min=1, help="How many images.")]
Output = Annotated[Path, typer.Option("-o", help="A .png for a grid, or a .npy of uint8 levels (n, h, w, c).")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Default: the recipe's.")]


def sample(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    number: SampleCount = 64,
    output: Output = Path("samples.png"),
    steps: Steps = None,
    kernel: Kernel = None,
    grid: Grid = None,
    seed: Seed = None,
) -> None:
    """Draw samples from a run: the first n of an endless sequence that the seed defines, up to float32 rounding."""
    if output.suffix not in (".png", ".npy"):
        raise RecipeError(f"-o {output}: expected a name that ends in .png or .npy.")
    if not output.parent.is_dir():
        raise RecipeError(f"-o {output}: there is no folder {output.parent}. Make it, or choose another.")
    on_grid = component("--grid", grid) if grid else {}
    overrides = with_steps(overrides, steps or steps_of(on_grid), "--steps" if steps else "--grid")
    overrides += [as_override(f"--grid {grid}", "sampling.grid", on_grid)] if on_grid else []
    reverse = component("--kernel", kernel) if kernel else {}
    overrides += [as_override(f"--kernel {kernel}", "sampling.sampler.kernel", reverse)] if reverse else []
    import jax
    import numpy as np

    from vdmkit.experiments.load import load_run
    from vdmkit.io import whole_file
    from vdmkit.multihost import is_first, own_folder
    from vdmkit.recipes.build import build_sampling
    from vdmkit.recipes.schema import drawn_by
    from vdmkit.report.charts import grid as grid_of
    from vdmkit.report.charts import write_png
    from vdmkit.sampling.sample import draw_samples

    run = load_run(own_folder(checkpoint), overrides, plugins, step, trust=trust)
    if not steps and steps_of(on_grid) and run.recipe.sampling.end == "image":
        # the step to the image is not in the grid
        sampling = replace(run.recipe.sampling, steps=run.recipe.sampling.steps + 1)
        run = replace(run, recipe=replace(run.recipe, sampling=sampling))
    model = run.weighted(run.recipe.evaluation.weights)
    key = jax.random.key(run.recipe.seed if seed is None else seed)
    images = draw_samples(model, build_sampling(run.recipe), number, key=key, progress="auto")
    if not is_first():
        return
    if output.suffix == ".npy":
        with whole_file(output) as part, part.open("wb") as file:
            np.save(file, images)
    else:
        write_png(grid_of(images, model.observation.levels), output)
    drawn = f"{number} sample{'s' * (number != 1)}"
    typer.echo(f"{output}: {drawn} of the checkpoint of step {run.step:,}, by {drawn_by(run.recipe)}")


Counts = Annotated[str, typer.Option("--steps", metavar="T,T,...", help="Numbers of steps.")]
ImageCount = Annotated[
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
    images: ImageCount = 256,
    nodes: Nodes = 61,
    fit: Fit = None,
    as_json: AsJson = False,
) -> None:
    """Measure the effect of schedules, step grids and reverse kernels on a run, and save the best of them."""
    from vdmkit.experiments.folder import RunFolder
    from vdmkit.experiments.load import load_run
    from vdmkit.experiments.study import check_fit, fit_schedule, leave, study_run
    from vdmkit.schedule_search.study import text_of_study

    run = load_run(checkpoint, overrides, plugins, step, trust=trust)
    if fit:
        check_fit(run, RunFolder(fit))
    try:
        found, kept = study_run(run, images=images, nodes=nodes, counts=_counts(counts))
        left = leave(found, run.folder.schedule)
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


Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")]
ReportFile = Annotated[Path, typer.Option("-o", metavar="FILE.html", help="The page to write.")]


def report(runs: Runs, output: ReportFile = Path("report.html"), trust: Trust = False) -> None:
    """Write a page of a run's numbers, curves, samples, recipe and commands; of several, with their differences."""
    if output.suffix != ".html" or output.is_dir():
        raise RecipeError(f"-o {output}: expected the name of a file that ends in .html.")
    if not output.parent.is_dir():
        raise RecipeError(f"-o {output}: there is no folder {output.parent}. Make it, or choose another.")
    from vdmkit.experiments.load import report_runs

    page = report_runs(runs, trust=trust, progress="auto")
    page.write(output)
    typer.echo(f"{output}: {len(page.html.encode()) / 1024:,.0f} KiB, of {', '.join(map(str, runs))}")
