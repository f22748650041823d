# SPDX-License-Identifier: Apache-2.0
"""`vdmkit convert`: converts a trained model to another path or prediction."""

from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import Checkpoint, PluginFiles, Step, Trust, command

To = Annotated[
    str, typer.Option("--to", metavar="RECIPE", help="Recipe of the new path and prediction: a file, or a name.")
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="NEW", help="The run folder to make.")]


def convert(
    checkpoint: Checkpoint, to: To, out: Out, plugins: PluginFiles, step: Step = None, trust: Trust = False
) -> None:
    """Convert a trained model to another path or prediction, without training, and check that its bound is the same."""
    from vdmkit.recipe import load_recipe
    from vdmkit.run import RunFolder, convert_run, load_run

    run = load_run(checkpoint, plugins=plugins, step=step, trust=trust)
    target = load_recipe(to, plugins=plugins, kept=run.folder.kept_plugins())
    found = convert_run(run, target, RunFolder(out), where=f"--to {to}")
    typer.echo(f"{found}\n  next  {command('likelihood', '--ckpt', out)}")
