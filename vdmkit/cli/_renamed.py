# SPDX-License-Identifier: Apache-2.0
"""Renamed commands and options. The old names are refused with a message that gives the new one."""

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
_UsageError: Any = typer.BadParameter.__base__  # typer's own or click's, by the version of typer


@contextmanager
def telling_new_names() -> Iterator[None]:
    """Adds the new name to the error of an old one, if the command that was called knows it."""
    try:
        yield
    except _UsageError as error:
        found = _UNKNOWN.match(error.message)
        new = RENAMED.get(found[2]) if found else None
        if found and new in _names(error.ctx.command):
            error.message = f"{found[0]}. It is now called {found[1]}{new}{found[1]}."
            error.possibilities = None
        raise


def _names(command: Any) -> set[str]:
    """Returns the names of a command's options and of the commands in it."""
    return {name for parameter in command.params for name in parameter.opts} | {*getattr(command, "commands", ())}
