# SPDX-License-Identifier: Apache-2.0
"""`vdmkit evaluate`: the test bound of a trained run."""

import json
from dataclasses import replace

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step


def evaluate(
    checkpoint: Checkpoint, overrides: Overrides, plugins: PluginFiles, step: Step = None, as_json: AsJson = False
) -> None:
    """Report the test bpd of a run, with its error bar and its terms."""
    from vdmkit.files import write_json
    from vdmkit.run import check_comparable, check_fits, check_model_of_run, load_run, load_test, read_hashes
    from vdmkit.run import evaluate as evaluate_model

    run = load_run(checkpoint, overrides, plugins, step)
    test = load_test(run)
    check_comparable(run.trained_on, test)
    model, trained_on = run.model(run.recipe.evaluation.weights), read_hashes(run.folder.trained_on)
    check_fits(model, test)
    findings = check_model_of_run(run.recipe, model, test.pixels).refuse()
    measured = evaluate_model(model, test, run.recipe, step=run.step, trained_on=trained_on)
    evaluation = replace(measured, unchecked=findings.unchecked)
    typer.echo(json.dumps(evaluation.as_json(), indent=2) if as_json else str(evaluation))
    write_json(run.folder.evaluation, evaluation.as_json())  # last: the folder may be read-only
    typer.echo(f"written to {run.folder.evaluation}", err=True)
