# SPDX-License-Identifier: Apache-2.0
"""What can be chosen by name, and how it is found: kinds, components, choices of a recipe, plugins.

This room imports no JAX, so that `vdmkit --help` stays fast; loading components does.
"""

from vdmkit.registry._choice import Choice, built
from vdmkit.registry._commands import COMMAND_GROUP, load_command, plugin_commands, plugin_folders
from vdmkit.registry._component import Component
from vdmkit.registry._kinds import Registry, define_kind, kinds, nearest, register, registry
from vdmkit.registry._plugins import (
    ENTRY_POINT_GROUP,
    broken_packages,
    copies_in,
    kept_plugins,
    load_plugins,
    plugin_packages,
    plugin_sources,
    runs_plugin_files,
)
from vdmkit.registry._trust import allow, remember

__all__ = [
    "COMMAND_GROUP",
    "ENTRY_POINT_GROUP",
    "Choice",
    "Component",
    "Registry",
    "allow",
    "broken_packages",
    "built",
    "copies_in",
    "define_kind",
    "kept_plugins",
    "kinds",
    "load_command",
    "load_plugins",
    "nearest",
    "plugin_commands",
    "plugin_folders",
    "plugin_packages",
    "plugin_sources",
    "register",
    "registry",
    "remember",
    "runs_plugin_files",
]
