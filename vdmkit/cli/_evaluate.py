# SPDX-License-Identifier: Apache-2.0
"""`vdmkit evaluate`: the test bound of a trained run."""

import json

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles


def evaluate(checkpoint: Checkpoint, overrides: Overrides, plugins: PluginFiles, as_json: AsJson = False) -> None:
    """Report the test bpd of a run, with its error bar and its terms."""
    from vdmkit.run import evaluate as evaluate_model
    from vdmkit.run import load_run, write_json

    run = load_run(checkpoint, overrides, plugins)
    settings = run.recipe.evaluation
    test = run.recipe.data.build().load("test")
    evaluation = evaluate_model(run.model(settings.weights), test, settings, step=run.step, seed=run.recipe.seed)
    typer.echo(json.dumps(evaluation.as_json(), indent=2) if as_json else str(evaluation))
    write_json(run.folder.evaluation, evaluation.as_json())  # last: the folder may be read-only
