# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file.")]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", default_factory=list, help="Override a key of the recipe. May be repeated."
    ),
]
PluginFiles = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        default_factory=list,
        help="A Python file that registers components. May be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")]
Checkpoint = Annotated[Path, typer.Option("--ckpt", metavar="RUN", help="A run folder.")]
