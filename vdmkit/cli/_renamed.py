# SPDX-License-Identifier: Apache-2.0
"""Renamed commands. The old names are refused with a message that gives the new one."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

RENAMED = {"score": "quality", "schedule": "study"}
_UNKNOWN = re.compile(r"No such command '([\w-]+)'")
_UsageError: Any = typer.BadParameter.__base__  # typer's own or click's, by the version of typer


@contextmanager
def telling_new_names() -> Iterator[None]:
    """Adds the new name to the error of an old one."""
    try:
        yield
    except _UsageError as error:
        if (found := _UNKNOWN.match(error.message)) and (new := RENAMED.get(found[1])):
            error.message = f"{found[0]}. It is now called '{new}'."
        raise
