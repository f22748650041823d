# SPDX-License-Identifier: Apache-2.0
"""`vdmkit evaluate`: measures the test bound of a trained run."""

import json

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step, Trust


def evaluate(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Report the test bpd of a run, with its error bar and its terms."""
    from vdmkit.distributed import own_folder
    from vdmkit.files import write_results
    from vdmkit.run import evaluate_run, load_run

    run = load_run(own_folder(checkpoint), overrides, plugins, step, trust=trust)
    evaluation = evaluate_run(run)
    typer.echo(json.dumps(evaluation.as_json(), indent=2) if as_json else str(evaluation))
    write_results(run.folder.evaluation, evaluation.as_json())  # last: the folder may be read-only
    typer.echo(f"written to {run.folder.evaluation}", err=True)
