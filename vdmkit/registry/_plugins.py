# SPDX-License-Identifier: Apache-2.0
"""Loads plugins: installed packages with a `vdmkit.plugins` entry point, and single Python files.

This module imports no JAX, but loading plugins does.
"""

import importlib.metadata
import re
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path

from vdmkit.errors import PluginWarning, RegistryError, in_one_line, place_of
from vdmkit.foreign import MAX_PLUGIN, TooMuch, read_at_most
from vdmkit.paths import not_a_file
from vdmkit.registry._component import Component
from vdmkit.registry._kinds import collecting, in_front, load_builtins, registering_as, registry
from vdmkit.registry._trust import allow, refuse_unknown, sha256_of

ENTRY_POINT_GROUP = "vdmkit.plugins"
_loads: dict[str, bool] = {}  # whether each installed package could be loaded; each is tried once in a process
_sources: dict[Path, bytes] = {}
_registered: dict[str, list[Component]] = {}  # what each executed plugin file registers, by the name of its module


def load_plugins(files: Iterable[str | Path] = ()) -> None:
    """Registers all components: vdmkit's own, those of installed packages, and those of `files`.

    An installed package that cannot be loaded causes a warning only, because the user may not need it.

    Raises:
        RegistryError: one of `files` does not load, or registers a name that is taken.
    """
    load_builtins()
    _load_installed()
    for file in files:
        _load_file(Path(file))


@contextmanager
def kept_plugins(files: Iterable[str | Path]) -> Iterator[None]:
    """Makes the plugin files that a run kept take precedence inside over plugins installed or loaded since.

    Raises:
        UnknownCodeError: one of `files` is not known, and none was executed.
        RegistryError: one of `files` does not load, or registers one of vdmkit's own names.
    """
    load_plugins()
    sources = {path: _source_of(path) for path in (Path(file).resolve() for file in files)}
    refuse_unknown(sources)
    components = [component for path, source in sources.items() for component in _components_of(path, source)]
    with in_front(components):
        yield


def copies_in(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Returns the plugin files, which the user named, of which `folder`, such as a run's, holds a copy."""
    both = [file for file in files if file.is_file() and (folder / file.name).is_file()]
    same = [file for file in both if (folder / file.name).read_bytes() == file.read_bytes()]
    allow(same)
    return same


def plugin_packages() -> list[str]:
    """Returns the names of the installed plugin packages that could be loaded."""
    return sorted({entry.dist.name for entry in entries_of(ENTRY_POINT_GROUP) if entry.dist} - set(broken_packages()))


def broken_packages() -> list[str]:
    """Returns the names of the installed plugin packages that could not be loaded."""
    return [name for name, loads in _loads.items() if not loads]


def entries_of(group: str) -> list[EntryPoint]:
    """Returns what installed packages bring to a group of entry points, by the names of package and entry point.

    Which of two packages has a name must not depend on the disk.
    """
    entries = importlib.metadata.entry_points(group=group)
    return sorted(entries, key=lambda entry: (package_of(entry), entry.name))


def package_of(entry: EntryPoint) -> str:
    """Returns the name of the package that brings an entry point."""
    return entry.dist.name if entry.dist else entry.value


def module_of(entry: EntryPoint) -> str:
    """Returns the top-level module that loading an entry point imports first."""
    return re.split(r"[.:]", entry.value)[0].strip()


def runs_plugin_files() -> bool:
    """Returns whether this process has executed the file of a plugin."""
    return bool(_sources)


def _load_installed() -> None:
    """Loads every package once, sorted by name, so that the winner of a name clash does not depend on the disk."""
    packages: dict[str, list[EntryPoint]] = {}
    for entry in entries_of(ENTRY_POINT_GROUP):
        packages.setdefault(package_of(entry), []).append(entry)
    modules = {module_of(entry) for entries in packages.values() for entry in entries}
    for name in sorted(packages.keys() - _loads.keys()):
        _loads[name] = _load_package(name, packages[name], modules)


def _load_package(name: str, entries: list[EntryPoint], plugins: set[str]) -> bool:
    """Imports the modules of a package's entry points: all of them, or none if one fails.

    Args:
        name: The package.
        entries: Its entry points.
        plugins: Names of all plugin modules, which are imported anew by their own entry points.
    """
    before = set(sys.modules)
    try:
        with registering_as(name):
            for entry in entries:
                with loading(entry):
                    entry.load()
    except RegistryError as error:
        # Another plugin that this one imported registers again when its own turn comes.
        for module in sys.modules.keys() - before:
            if module.partition(".")[0] in plugins:
                del sys.modules[module]
        warn_of(str(error))
        return False
    return True


def warn_of(message: str) -> None:
    """Warns of an installed package in one line, also if its error has several."""
    warnings.warn(" ".join(message.split()), PluginWarning, stacklevel=2)


def plugin_sources(files: Iterable[str | Path]) -> dict[str, bytes]:
    """Returns the source of each loaded plugin file as it was executed, by file name.

    Raises:
        RegistryError: two of them have the same name.
    """
    paths = {Path(file).resolve() for file in files}
    sources = {path.name: _sources[path] for path in paths}
    if len(sources) < len(paths):
        raise RegistryError("--plugin: two files have the same name. Rename one: a run keeps a copy of each.")
    return sources


def _load_file(path: Path) -> None:
    """Registers the components of a Python file: all of them, or none if one fails."""
    path = path.resolve()
    components = _components_of(path, _source_of(path))
    try:
        with registering_as(str(path)):
            for component in components:
                registry(component.kind).place(component)
    except RegistryError as error:
        raise RegistryError(f"--plugin {path} does not load: {error}") from error


def _source_of(path: Path) -> bytes:
    if reason := not_a_file(path):
        raise RegistryError(f"--plugin {path}: {reason}. Give a Python file that registers components.")
    if path.suffix != ".py":
        raise RegistryError(f"--plugin {path} does not load: the name of a Python file ends in .py.")
    try:
        return read_at_most(path, MAX_PLUGIN)
    except TooMuch as error:
        raise RegistryError(f"--plugin {path} does not load: {error}.") from error


def _components_of(path: Path, source: bytes) -> list[Component]:
    """Executes the file, unless this process already executed a file of the same content; returns its components."""
    _sources[path] = source
    module_name = f"vdmkit_plugin_{path.stem}_{sha256_of(source)[:16]}"
    if module_name not in sys.modules:
        message = _one_message(f"--plugin {path}", "Repair it.")
        with registering_as(str(path)), collecting() as components, message:
            _execute(source, path, module_name)
        _registered[module_name] = components
    return _registered[module_name]


def _execute(source: bytes, path: Path, module_name: str) -> None:
    """Executes the source without importlib, which might use a stale .pyc and would write one beside the file."""
    module = sys.modules[module_name] = types.ModuleType(module_name)
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise


def loading(entry: EntryPoint) -> AbstractContextManager[None]:
    """Raises errors of an installed package inside the block as a RegistryError that names it."""
    return _one_message(f"plugin package {package_of(entry)!r} ({entry.value})", "Repair it, or uninstall it.")


@contextmanager
def _one_message(where: str, advice: str) -> Iterator[None]:
    """Turns every error in a plugin's code, SystemExit included, into a message of one line."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except RegistryError as error:
        raise RegistryError(f"{where} does not load: {error} {advice}") from error
    except BaseException as error:
        found = in_one_line(error) + _place(error)
        raise RegistryError(f"{where} does not load: {found}. {advice}") from error


def _place(error: BaseException) -> str:
    """Returns the line of the plugin's code that failed, or '' if it was not executed."""
    place = place_of(error, lambda file: "importlib" not in file)
    return "" if __file__ in place else place
