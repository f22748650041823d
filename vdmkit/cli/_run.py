# SPDX-License-Identifier: Apache-2.0
"""`vdmkit run`: trains, evaluates and samples a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import Overrides, PluginFiles, RecipeName, command

_DEFAULT = "The run folder. Default: runs/ and the last part of RECIPE: runs/edm for cifar10/edm."
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help=_DEFAULT)]


def run(recipe: RecipeName, overrides: Overrides, plugins: PluginFiles, out: Out = None) -> None:
    """Train a recipe, report its test bpd, and draw samples. Run again to continue."""
    from vdmkit.recipe import load_for_run

    checked, text, path = load_for_run(recipe, out, overrides, plugins)
    from vdmkit.run import RunFolder, run_recipe

    folder = RunFolder(path)
    evaluation = run_recipe(checked, text, folder, plugins, progress="auto")
    samples = f"{folder.samples}  (left: samples, right: real)" if folder.samples.exists() else "none: not finite"
    typer.echo(
        f"\n{evaluation}\n\n"
        f"  samples      {samples}\n"
        f"  checkpoints  {folder.checkpoints}\n"
        f"  evaluation   {folder.evaluation}\n"
        f"  next         {command('sample', '--ckpt', folder.path, '-n', '64', '-o', 'grid.png')}\n"
        f"               {command('likelihood', '--ckpt', folder.path)}"
    )
