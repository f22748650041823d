# SPDX-License-Identifier: Apache-2.0
"""Components from outside: installed packages with a `vdmkit.plugins` entry point, and single Python files.

This module imports no JAX, but loading plugins does.
"""

import hashlib
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
from vdmkit.paths import not_a_file
from vdmkit.registry._component import Component
from vdmkit.registry._kinds import collecting, in_front, load_builtins, registering_as, registry

ENTRY_POINT_GROUP = "vdmkit.plugins"
_loads: dict[str, bool] = {}  # every installed package that was tried: once in a process, and warned of once
_sources: dict[Path, bytes] = {}
_registered: dict[str, list[Component]] = {}  # by the module's name: what a plugin file that was executed registers


def load_plugins(files: Iterable[str | Path] = ()) -> None:
    """Make all components known: vdmkit's own, those of installed packages, and those of `files`.

    An installed package that does not load brings nothing, and is warned of: its user may not even need it.

    Raises:
        RegistryError: one of `files` does not load, or a name of it is taken.
    """
    load_builtins()
    _load_installed()
    for file in files:
        _load_file(Path(file))


@contextmanager
def kept_plugins(files: Iterable[str | Path]) -> Iterator[None]:
    """Inside, a run is read by the plugin files that it kept, whatever was installed or loaded by those names since.

    Raises:
        RegistryError: one of `files` does not load, or has a name of vdmkit.
    """
    load_plugins()
    components = [component for file in files for component in _components_of(Path(file))]
    with in_front(components):
        yield


def copies_in(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Returns those of plugin files that `folder`, such as that of a run's plugins, holds a copy of."""
    both = [file for file in files if file.is_file() and (folder / file.name).is_file()]
    return [file for file in both if (folder / file.name).read_bytes() == file.read_bytes()]


def plugin_packages() -> list[str]:
    """Names of the installed packages that bring plugins, but for the broken ones."""
    return sorted({entry.dist.name for entry in entries_of(ENTRY_POINT_GROUP) if entry.dist} - set(broken_packages()))


def broken_packages() -> list[str]:
    """Names of the installed packages that did not load."""
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


def _load_installed() -> None:
    """Load every package once."""
    packages: dict[str, list[EntryPoint]] = {}
    for entry in entries_of(ENTRY_POINT_GROUP):
        packages.setdefault(package_of(entry), []).append(entry)
    modules = {module_of(entry) for entries in packages.values() for entry in entries}
    for name in sorted(packages.keys() - _loads.keys()):
        _loads[name] = _load_package(name, packages[name], modules)


def _load_package(name: str, entries: list[EntryPoint], plugins: set[str]) -> bool:
    """Import the modules that a package's entry points name: all of them or none. `plugins`: where plugins are."""
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
    """Warn of an installed package, in one line, whatever it raised."""
    warnings.warn(" ".join(message.split()), PluginWarning, stacklevel=2)


def plugin_sources(files: Iterable[str | Path]) -> dict[str, bytes]:
    """By file name, what was executed of plugin files that were loaded, whatever they hold by now.

    Raises:
        RegistryError: two of them have the same name.
    """
    paths = {Path(file).resolve() for file in files}
    sources = {path.name: _sources[path] for path in paths}
    if len(sources) < len(paths):
        raise RegistryError("--plugin: two files have the same name. Rename one: a run keeps a copy of each.")
    return sources


def _load_file(path: Path) -> None:
    """Make available what a Python file registers: all of it or nothing. A copy of it has the same components."""
    components = _components_of(path)
    try:
        with registering_as(str(path)):
            for component in components:
                registry(component.kind).place(component)
    except RegistryError as error:
        raise RegistryError(f"--plugin {path} does not load: {error}") from error


def _components_of(path: Path) -> list[Component]:
    """Execute the file, unless it, or a copy of it, was executed before in this process. Returns what it registers."""
    path = path.resolve()
    if reason := not_a_file(path):
        raise RegistryError(f"--plugin {path}: {reason}. Give a Python file that registers components.")
    if path.suffix != ".py":
        raise RegistryError(f"--plugin {path} does not load: the name of a Python file ends in .py.")
    source = _sources[path] = path.read_bytes()
    module_name = f"vdmkit_plugin_{path.stem}_{hashlib.sha256(source).hexdigest()[:16]}"
    if module_name not in sys.modules:
        message = _one_message(f"--plugin {path}", "Repair it.")
        with registering_as(str(path)), collecting() as components, message:
            _execute(source, path, module_name)
        _registered[module_name] = components
    return _registered[module_name]


def _execute(source: bytes, path: Path, module_name: str) -> None:
    """Not by importlib: it could find a stale .pyc, and would leave one beside the file."""
    module = sys.modules[module_name] = types.ModuleType(module_name)
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise


def loading(entry: EntryPoint) -> AbstractContextManager[None]:
    """Inside, what an installed package does wrong is raised as a RegistryError that names it."""
    return _one_message(f"plugin package {package_of(entry)!r} ({entry.value})", "Repair it, or uninstall it.")


@contextmanager
def _one_message(where: str, advice: str) -> Iterator[None]:
    """Turn whatever goes wrong in foreign code, even its leaving the program, into one line."""
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
    """The line of the plugin's code that failed, if it came to run."""
    place = place_of(error, lambda file: "importlib" not in file)
    return "" if __file__ in place else place
