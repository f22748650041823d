# SPDX-License-Identifier: Apache-2.0
"""`vdmkit likelihood`: bits per dimension that can be trusted."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step
from vdmkit.errors import UntrustedError

if TYPE_CHECKING:
    from vdmkit.data import Images
    from vdmkit.likelihood import Check
    from vdmkit.run import TrainedRun

Estimator = Annotated[str | None, typer.Option("--estimator", help="bound, ode or importance. Default: the recipe's.")]
Steps = Annotated[
    int | None, typer.Option("--steps", help="T of a bound, 0 is continuous time; or constant steps of the ode.")
]
Precision = Annotated[
    float | None, typer.Option("--precision", help="Go on to this 95% Monte Carlo half-width, in bits/dim.")
]
Untrusted = Annotated[bool, typer.Option("--allow-untrusted", help="Print even what is not a likelihood, marked.")]
Audit = Annotated[
    bool, typer.Option("--audit", help="Run all estimators on a few images and check what must hold between them.")
]


def likelihood(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    estimator: Estimator = None,
    steps: Steps = None,
    precision: Precision = None,
    step: Step = None,
    audit: Audit = False,
    allow_untrusted: Untrusted = False,
    as_json: AsJson = False,
) -> None:
    """Measure -log2 P of the test images of a run: the estimator, its error, and what it was measured on."""
    from vdmkit.run import load_run, measure_likelihood

    given = {"estimator.name": estimator, "estimator.steps": steps, "precision": precision}
    shorthands = [f"likelihood.{key}={value}" for key, value in given.items() if value is not None]
    run = load_run(checkpoint, [*shorthands, *overrides], plugins, step)
    test = run.recipe.data.build().load("test")
    if audit:
        return _audit(run, test, as_json)
    report = measure_likelihood(run, test, allow_untrusted=allow_untrusted)
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else str(report))


def _audit(run: "TrainedRun", test: "Images", as_json: bool) -> None:
    """Print every check; failing ones make the exit code 4."""
    from vdmkit.run import as_json as facts
    from vdmkit.run import audit

    checks = audit(run, test)
    if as_json:
        typer.echo(json.dumps([facts(check) for check in checks], indent=2))
    else:
        typer.echo("\n".join(_line(check) for check in checks))
    failed = sum(check.verdict == "fails" for check in checks)
    if failed:
        raise UntrustedError(f"the audit failed: {failed} of {len(checks)} checks. These numbers are no likelihoods.")


def _line(check: "Check") -> str:
    text = f"{check.difference:+.5f} +/- {check.half_width:.5f} in [{check.low:g}, {check.high:g}]"
    return f"{check.verdict:27} {check.claim:64} {text}"
