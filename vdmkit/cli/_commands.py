# SPDX-License-Identifier: Apache-2.0
"""The commands of vdmkit and of installed packages; packages are imported only when commands are listed or called."""

from collections.abc import Callable
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperGroup

from vdmkit.cli._advice import advising
from vdmkit.cli._stoppable import stoppable
from vdmkit.errors import RegistryError
from vdmkit.registry import load_command, plugin_commands

_OF_PLUGINS: dict[str, str] = dict.fromkeys(("compress", "decompress", "inspect"), "vdmkit-codec")


class Commands(TyperGroup):
    """The program's commands by their names."""

    @cached_property
    def _of_packages(self) -> dict[str, EntryPoint]:
        """Returns the commands of packages, read once, so that a warning of a taken name is printed once."""
        return plugin_commands(self.commands)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self._of_packages]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self._of_packages.get(cmd_name)
        if entry is None and (package := _OF_PLUGINS.get(cmd_name)):
            raise RegistryError(
                f"vdmkit {cmd_name}: is a command of the plugin {package}, which is not installed. "
                f"In a checkout of vdmkit: pip install -e plugins/{package}, or uv sync."
            )
        return _command(entry) if entry else super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        with advising():
            return super().invoke(ctx)


def _command(entry: EntryPoint) -> Any:
    """Loads a package's command; returns None if the package does not load."""

    def make(function: Callable[..., Any]) -> Any:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(entry.name)(stoppable(function))
        return typer.main.get_command(alone)

    return load_command(entry, make)
