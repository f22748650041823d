# SPDX-License-Identifier: Apache-2.0
"""`vdmkit evaluate`: the test bound of a trained run."""

import json

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step


def evaluate(
    checkpoint: Checkpoint, overrides: Overrides, plugins: PluginFiles, step: Step = None, as_json: AsJson = False
) -> None:
    """Report the test bpd of a run, with its error bar and its terms."""
    from vdmkit.files import write_json
    from vdmkit.run import check_comparable, check_fits, check_model_of_run, load_run, load_test, read_trained_on
    from vdmkit.run import evaluate as evaluate_model

    run = load_run(checkpoint, overrides, plugins, step)
    test, model = load_test(run), run.model(run.recipe.evaluation.weights)
    known = read_trained_on(run.folder)
    remarks = check_comparable(run.trained_on, test, known.statistics)
    check_fits(model, test)
    remarks += check_model_of_run(run.recipe, model, test.pixels).refuse().remarks
    evaluation = evaluate_model(model, test, run.recipe, step=run.step, trained_on=known.prints, remarks=remarks)
    typer.echo(json.dumps(evaluation.as_json(), indent=2) if as_json else str(evaluation))
    write_json(run.folder.evaluation, evaluation.as_json())  # last: the folder may be read-only
    typer.echo(f"written to {run.folder.evaluation}", err=True)
