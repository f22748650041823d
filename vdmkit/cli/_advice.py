# SPDX-License-Identifier: Apache-2.0
"""Advice on command lines that are refused: the new names of renamed commands and options, and `--set`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

RENAMED = {
    "score": "quality",
    "schedule": "study",
    "--step": "--checkpoint-step",
}
_UNKNOWN = re.compile(r"No such (?:command|option:) ('?)([\w-]+)\1")
_OVERRIDE = re.compile(r"Got unexpected extra argument.*\((\w[\w.]*=[^\s)]+)")
_UsageError: Any = typer.BadParameter.__base__  # typer's own or click's, by the version of typer


@contextmanager
def advising() -> Iterator[None]:
    """Adds what to write instead to the error of an old name, or of an override without `--set`."""
    try:
        yield
    except _UsageError as error:
        names = _names(error.ctx.command) if error.ctx else set()
        if (found := _UNKNOWN.match(error.message)) and (new := RENAMED.get(found[2])) in names:
            error.message = f"{found[0]}. It is now called {found[1]}{new}{found[1]}."
            error.possibilities = None
        elif (found := _OVERRIDE.match(error.message)) and "--set" in names:
            error.message += f". To override a key of the recipe: --set {found[1]}"
        raise


def _names(command: Any) -> set[str]:
    """Returns the names of a command's options and of the commands in it."""
    return {name for parameter in command.params for name in parameter.opts} | {*getattr(command, "commands", ())}
