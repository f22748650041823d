# SPDX-License-Identifier: Apache-2.0
"""`vdmkit likelihood`: measures the likelihood of a run's test images, with its error."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from vdmkit.cli._component import Grid, Kernel, of_estimator
from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step, as_override
from vdmkit.cli._stoppable import stoppable
from vdmkit.errors import RecipeError, UntrustedError

if TYPE_CHECKING:
    from vdmkit.data import Images
    from vdmkit.likelihood import Check
    from vdmkit.registry import Choice
    from vdmkit.run import Run

Estimator = Annotated[str | None, typer.Option("--estimator", help="bound, ode or importance. Default: the recipe's.")]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="T of a bound; 0 is continuous time. Default: as trained (importance: then 100)."),
]
SolverSteps = Annotated[
    int | None, typer.Option("--solver-steps", min=1, help="Constant steps of the ode. Default: its tolerances choose.")
]
Precision = Annotated[float | None, typer.Option("--precision", help="Wanted 95% Monte Carlo half-width, in bits/dim.")]
Untrusted = Annotated[
    bool, typer.Option("--allow-untrusted", help="Also print a number that is not a likelihood, marked.")
]
Audit = Annotated[bool, typer.Option("--audit", help="Run all estimators on a few images, and check their relations.")]


def likelihood(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    estimator: Estimator = None,
    steps: Steps = None,
    solver_steps: SolverSteps = None,
    kernel: Kernel = None,
    grid: Grid = None,
    precision: Precision = None,
    step: Step = None,
    audit: Audit = False,
    allow_untrusted: Untrusted = False,
    as_json: AsJson = False,
) -> None:
    """Measure -log2 P of the test images of a run, with its error."""
    from vdmkit.distributed import own_folder
    from vdmkit.run import load_run, load_test, measure_likelihood

    given = {"estimator.name": ("--estimator", estimator), "precision": ("--precision", precision)}
    shorthands = [
        as_override(f"{option} {value}", f"likelihood.{key}", value)
        for key, (option, value) in given.items()
        if value is not None
    ]
    run = load_run(own_folder(checkpoint), [*shorthands, *overrides], plugins, step)
    if of_steps := _of_steps(run.recipe.likelihood.estimator, of_estimator(steps, kernel, grid), solver_steps):
        shorthands += of_steps
        run = replace(run, recipe=run.read_recipe([*shorthands, *overrides]))
    test = load_test(run)
    if audit:
        if shorthands or any(key.startswith(("likelihood.estimator", "likelihood.precision")) for key in overrides):
            raise RecipeError("--audit runs its own estimators: omit the estimator, its steps and --precision.")
        return _audit(run, test, as_json)
    report = measure_likelihood(run, test, allow_untrusted=allow_untrusted)
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else str(report))


def _of_steps(estimator: "Choice", of_bound: list[str], solver_steps: int | None) -> list[str]:
    """Returns the overrides of T steps and of a solver's. Raises RecipeError if they are of another estimator."""
    solves = "solver_steps" in estimator.component.parameters
    if of_bound and solves:
        raise RecipeError(
            f"--steps, --kernel and --grid choose the diffusion steps of a bound, and the estimator {estimator.name} "
            "has none. The constant steps of its solver are --solver-steps."
        )
    if solver_steps and not solves:
        raise RecipeError(f"--solver-steps: the estimator {estimator.name} solves no ODE. T of a bound is --steps.")
    words, key = f"--solver-steps {solver_steps}", "likelihood.estimator.solver_steps"
    return [*of_bound, *([as_override(words, key, solver_steps)] if solver_steps else [])]


def _audit(run: "Run", test: "Images", as_json: bool) -> None:
    """Prints every check; if one fails, the exit code is 4."""
    from vdmkit.devices import arithmetic, precisely
    from vdmkit.likelihood import audit_as_json
    from vdmkit.run import audit

    measured_in = precisely(arithmetic)()
    checks = stoppable(audit, "An audit keeps nothing: run the same command again to begin anew.")(run, test)
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
