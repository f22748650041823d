# SPDX-License-Identifier: Apache-2.0
"""`vdmkit run`: the main job."""

from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import Overrides, PluginFiles, RecipeFile, command
from vdmkit.errors import Interrupted

Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run folder. Default: runs/RECIPE.")]


def run(recipe: RecipeFile, overrides: Overrides, plugins: PluginFiles, out: Out = None) -> None:
    """Train a recipe, report its test bpd, draw samples. Run again to continue."""
    from vdmkit.recipe import load_recipe

    checked = load_recipe(recipe, overrides, plugins)
    from vdmkit.run import RunFolder, run_recipe

    folder = RunFolder(out or Path("runs") / recipe.stem)
    try:
        evaluation = run_recipe(checked, recipe.read_text(), folder, plugins)
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What was saved is kept: to go on, run the same command again.") from None
    samples = f"{folder.samples}  (left: samples, right: real)" if folder.samples.exists() else "none: not finite"
    typer.echo(
        f"\n{evaluation}\n\n"
        f"  samples      {samples}\n"
        f"  checkpoints  {folder.checkpoints}\n"
        f"  evaluation   {folder.evaluation}\n"
        f"  next         {command('sample', '--ckpt', folder.path, '-n', '64', '-o', 'grid.png')}\n"
        f"               {command('likelihood', '--ckpt', folder.path)}"
    )
