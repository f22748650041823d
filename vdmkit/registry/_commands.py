# SPDX-License-Identifier: Apache-2.0
"""Commands of installed packages: functions in the entry-point group `vdmkit.commands`.

This module imports no JAX, and finds the commands without importing the packages.
"""

from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from vdmkit.errors import RegistryError
from vdmkit.registry._plugins import (
    ENTRY_POINT_GROUP,
    entries_of,
    load_plugins,
    loading,
    module_of,
    package_of,
    warn_of,
)

COMMAND_GROUP = "vdmkit.commands"
T = TypeVar("T")


def plugin_commands(own: Collection[str]) -> dict[str, EntryPoint]:
    """Returns the commands of installed packages by name, without importing them.

    A name that is taken, by vdmkit or by an alphabetically earlier package, is refused with a PluginWarning.

    Args:
        own: The names of vdmkit's own commands.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entries_of(COMMAND_GROUP):
        owner = "vdmkit" if entry.name in own else package_of(found[entry.name]) if entry.name in found else None
        if owner:
            where = f"plugin package {package_of(entry)!r} ({entry.value})"
            warn_of(f"{where}: command {entry.name!r}: the name is taken by {owner}. Rename it there, or uninstall it.")
        else:
            found[entry.name] = entry
    return found


def plugin_folders() -> dict[str, Path]:
    """Returns where the code of each installed package with components or commands is, without importing it."""
    entries = [*entries_of(ENTRY_POINT_GROUP), *entries_of(COMMAND_GROUP)]
    found = {package_of(entry): find_spec(module_of(entry)) for entry in entries}
    return {name: Path(spec.origin).parent for name, spec in sorted(found.items()) if spec and spec.origin}


def load_command(entry: EntryPoint, make: Callable[[Callable[..., Any]], T]) -> T | None:
    """Returns `make` of a package's function, or None with a PluginWarning if one of the two fails.

    Importing a module that also has components registers them.
    """
    try:
        with loading(entry):
            if module_of(entry) in {module_of(one) for one in entries_of(ENTRY_POINT_GROUP)}:
                load_plugins()
            function = entry.load()
            if not callable(function):
                raise RegistryError(f"expected a function, found {type(function).__name__}.")
            return make(function)
    except RegistryError as error:
        warn_of(str(error))
        return None
