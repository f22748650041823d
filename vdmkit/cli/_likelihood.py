# SPDX-License-Identifier: Apache-2.0
"""`vdmkit likelihood`: measures the likelihood of a run's test images, with its error."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from vdmkit.cli._component import Grid, Kernel, of_estimator
from vdmkit.cli._measured import Estimator, SolverSteps, Steps, run_to_measure, shorthands
from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step, Trust
from vdmkit.cli._stoppable import stoppable
from vdmkit.errors import RecipeError, UntrustedError

if TYPE_CHECKING:
    from vdmkit.data import Images
    from vdmkit.likelihood import Check
    from vdmkit.run import Run

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
    steps: Steps = None,
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
    from vdmkit.run import load_test, measure_likelihood

    told = int(label) if label and label.isdecimal() else label
    named = shorthands(estimator=estimator, precision=precision, label=told)
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
