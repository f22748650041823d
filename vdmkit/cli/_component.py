# SPDX-License-Identifier: Apache-2.0
"""Components given by an option: their name, or a TOML file of their keys such as `vdmkit study` saves."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vdmkit.cli._options import as_override
from vdmkit.errors import RecipeError
from vdmkit.files import check_sealed_text
from vdmkit.foreign import TooMuch
from vdmkit.paths import not_a_file

Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="NAME|FILE.toml",
        help="Reverse kernel of T steps: a name that `vdmkit list kernel` shows, or a file that `vdmkit study` saves. "
        "Default: that of training if T is, or if it has learned variances; else gaussian.",
    ),
]


def grid_option(default: str) -> Any:
    """Returns the option `--grid`; `default` says what holds without it."""
    where = "a name that `vdmkit list grid` shows, or a file that `vdmkit study` saves"
    text = f"The gammas of T steps: {where}. Default: {default}."
    return typer.Option("--grid", metavar="NAME|FILE.toml", help=text)


Grid = Annotated[str | None, grid_option("that of training if T is, or even in t")]


def component(option: str, name: str) -> dict[str, Any]:
    """Returns the name and keys of a component. Raises RecipeError if the file does not describe one."""
    if not name.endswith(".toml"):
        return {"name": name}
    if reason := not_a_file(Path(name)):
        raise RecipeError(f"{option} {name}: {reason}. Expected a component as `vdmkit study` saves it.")
    from vdmkit.recipe import parse_toml, read_toml

    try:
        text = read_toml(Path(name))
        check_sealed_text(text)
        table = parse_toml(text)
    except (OSError, ValueError, TooMuch) as error:
        raise RecipeError(f"{option} {name}: cannot be read: {error}.") from error
    if not isinstance(table.get("name"), str):
        raise RecipeError(f"{option} {name}: without a name. Expected a component as `vdmkit study` saves it.")
    return table


def of_estimator(steps: int | None, kernel: str | None, grid: str | None) -> list[str]:
    """Returns the options that choose the steps of a bound, as overrides of the recipe."""
    names = {"kernel": kernel, "grid": grid}
    parts = {key: component(f"--{key}", name) for key, name in names.items() if name is not None}
    words, on_grid = f"--steps {steps}", steps_of(parts.get("grid", {}))
    if steps is None and on_grid is not None:
        words, steps = f"--grid {grid}", on_grid
    chosen = [] if steps is None else [as_override(words, "likelihood.estimator.steps", steps)]
    return chosen + [
        as_override(f"--{key} {names[key]}", f"likelihood.estimator.{key}", table) for key, table in parts.items()
    ]


def steps_of(table: dict[str, Any]) -> int | None:
    """Returns the number of steps of a grid, or None if its keys do not determine it."""
    listed = table.get("gammas", table.get("times"))
    return len(listed) - 1 if isinstance(listed, list) else None
