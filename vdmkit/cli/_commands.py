# SPDX-License-Identifier: Apache-2.0
"""vdmkit's own commands, and those of installed packages, which are imported only when they are listed or called."""

from collections.abc import Callable
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperGroup

from vdmkit.cli._stoppable import stoppable
from vdmkit.registry import load_command, plugin_commands


class Commands(TyperGroup):
    """The program's commands by their names."""

    @cached_property
    def _of_packages(self) -> dict[str, EntryPoint]:
        """Read once, so that a name that is taken is warned of once."""
        return plugin_commands(self.commands)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self._of_packages]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self._of_packages.get(cmd_name)
        return _command(entry) if entry else super().get_command(ctx, cmd_name)


def _command(entry: EntryPoint) -> Any:
    """None if the package does not load."""

    def make(function: Callable[..., Any]) -> Any:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(entry.name)(stoppable(function))
        return typer.main.get_command(alone)

    return load_command(entry, make)
