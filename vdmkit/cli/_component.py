# SPDX-License-Identifier: Apache-2.0
"""Components given by an option: their name, or a TOML file of their keys such as `vdmkit study` saves."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import tomlkit
import typer

from vdmkit.errors import RecipeError
from vdmkit.paths import not_a_file

Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="NAME|FILE.toml",
        help="Reverse kernel of T steps. Default: as trained, or gaussian; for compress mixture, if possible.",
    ),
]
Grid = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="NAME|FILE.toml",
        help="The gammas of T steps. Default: as trained, or even in t; for compress even in gamma.",
    ),
]


def component(option: str, given: str) -> dict[str, Any]:
    """Returns the name and keys of a component. Raises RecipeError if the file does not describe one."""
    if not given.endswith(".toml"):
        return {"name": given}
    if reason := not_a_file(Path(given)):
        raise RecipeError(f"{option} {given}: {reason}. Expected a component as `vdmkit study` saves it.")
    try:
        table = tomllib.loads(Path(given).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{option} {given}: cannot be read: {error}.") from error
    if not isinstance(table.get("name"), str):
        raise RecipeError(f"{option} {given}: without a name. Expected a component as `vdmkit study` saves it.")
    return table


def override(key: str, table: dict[str, Any]) -> str:
    """Returns a component as KEY=VALUE."""
    inline = tomlkit.inline_table()
    inline.update(table)
    return f"{key}={inline.as_string()}"


def of_estimator(steps: int | None, kernel: str | None, grid: str | None) -> list[str]:
    """Returns the options that choose the steps of a bound, as overrides of the recipe."""
    given = {"kernel": kernel, "grid": grid}
    parts = {key: component(f"--{key}", name) for key, name in given.items() if name is not None}
    steps = steps_of(parts.get("grid", {})) if steps is None else steps
    chosen = [f"likelihood.estimator.steps={steps}"] if steps is not None else []
    return chosen + [override(f"likelihood.estimator.{key}", table) for key, table in parts.items()]


def steps_of(table: dict[str, Any]) -> int | None:
    """Returns the number of steps of a grid, or None if its keys do not determine it."""
    listed = table.get("gammas", table.get("times"))
    return len(listed) - 1 if isinstance(listed, list) else None
