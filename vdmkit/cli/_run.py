# SPDX-License-Identifier: Apache-2.0
"""`vdmkit run`: trains, evaluates and samples a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import Overrides, PluginFiles, RecipeName, command

_DEFAULT = "The run folder. Default: runs/ and the last part of RECIPE: runs/edm for cifar10/edm."
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help=_DEFAULT)]


Fsdp = Annotated[
    bool, typer.Option("--fsdp", help="Divide the training state over all devices; by default each has a copy.")
]


def run(recipe: RecipeName, overrides: Overrides, plugins: PluginFiles, out: Out = None, fsdp: Fsdp = False) -> None:
    """Train a recipe, report its test bpd, and draw samples. Run again to continue."""
    from vdmkit.recipe import load_for_run

    checked, text, path = load_for_run(recipe, out, overrides, plugins)
    import jax

    from vdmkit.distributed import own_folder
    from vdmkit.run import RunFolder, run_recipe

    folder = RunFolder(own_folder(path), path)
    devices = jax.device_count() if fsdp else 1
    evaluation = run_recipe(checked, text, folder, plugins, progress="auto", fsdp=devices)
    samples = f"{folder.samples}  (left: samples, right: real)" if folder.samples.exists() else "none: not finite"
    typer.echo(
        f"\n{evaluation}\n\n"
        f"  samples      {samples}\n"
        f"  checkpoints  {folder.checkpoints}\n"
        f"  evaluation   {folder.evaluation}\n"
        f"  next         {command('sample', '--ckpt', folder.path, '-n', '64', '-o', 'grid.png')}\n"
        f"               {command('likelihood', '--ckpt', folder.path)}"
    )
