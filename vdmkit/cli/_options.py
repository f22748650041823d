# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share, and the form of commands in messages."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from vdmkit.errors import RecipeError

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A TOML file, or a name that `vdmkit list recipe` shows; a file takes precedence."
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        default_factory=list,
        show_default=False,
        help="Override a key of the recipe. May be repeated.",
    ),
]
PluginFiles = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        default_factory=list,
        show_default=False,
        help="A Python file that registers components. May be repeated.",
    ),
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps. Default: the recipe's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")]
Checkpoint = Annotated[Path, typer.Option("--ckpt", metavar="RUN", help="A run folder.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Execute plugin files of RUN though no run of yours on this machine had them.")
]
Step = Annotated[int | None, typer.Option("--checkpoint-step", min=0, help="A checkpoint's step. Default: the newest.")]


def with_steps(overrides: list[str], steps: int | None, option: str = "--steps") -> list[str]:
    """Adds the sampling steps to the overrides. Raises RecipeError if the overrides have them already.

    `option` is what they were given by: the gammas of a `--grid` determine their number.
    """
    if steps is None:
        return overrides
    if any(text.partition("=")[0].strip() == "sampling.steps" for text in overrides):
        raise RecipeError(f"{option} and --set sampling.steps set the same key. Omit one of them.")
    return [*overrides, as_override(f"--steps {steps}" if option == "--steps" else option, "sampling.steps", steps)]


def as_override(words: str, key: str, value: Any) -> str:
    """Returns the override of a recipe key that an option stands for; messages name the option, by its `words`."""
    from vdmkit.recipe import Override, toml_text

    return Override(f"{key}={toml_text(value)}", words)


def command(*words: str | Path) -> str:
    """Returns a command line as this user would type it: with `uv run`, `vdmkit` is not on the shell's path."""
    program = ("uv", "run", "vdmkit") if "UV_RUN_RECURSION_DEPTH" in os.environ else ("vdmkit",)
    return shlex.join([*program, *map(str, words)])
