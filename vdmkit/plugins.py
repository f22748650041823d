# SPDX-License-Identifier: Apache-2.0
"""Plugins: installed packages and single Python files that register components or add commands.

- Loading. Components come from installed packages with an entry point in the group `vdmkit.plugins`, and from Python
  files. Importing this module does not load JAX, but loading plugins does.
- Trust. A run folder from someone else is data, not a program: the plugin files that it keeps are executed only if this
  user passed a file of the same contents by `--plugin`, trusted it, or trained a run with it on this machine. The
  SHA-256 of the latter are recorded in the cache folder, one file each.
- Commands. Functions in the entry-point group `vdmkit.commands` become commands of the program; they are listed
  without importing the packages.
"""

import hashlib
import importlib.metadata
import re
import sys
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from vdmkit.errors import DataError, PluginWarning, RegistryError, UnknownCodeError, in_one_line, place_of
from vdmkit.io import MAX_PLUGIN, TooMuch, cache_folder, is_own_file, not_a_file, read_at_most, write_text
from vdmkit.registry import Component, collecting, in_front, load_builtins, registering_as, registry

_known: set[str] = set()  # SHA-256 of the plugin files that this process may execute


def allow(files: Iterable[str | Path]) -> None:
    """Allows this process to execute the plugin files, which the user named or trusts."""
    _known.update(sha256_of(Path(file).read_bytes()) for file in files if not_a_file(Path(file)) is None)


def remember(sources: Mapping[str, bytes]) -> None:
    """Records the contents of plugin files, by name, as part of a run that this user trained.

    If the record cannot be written, training continues, and later commands require `--trust`.
    """
    for name, source in sources.items():
        sha256 = sha256_of(source)
        _known.add(sha256)
        with suppress(OSError, DataError):
            record = _record_of(sha256)
            record.parent.mkdir(parents=True, exist_ok=True)
            write_text(record, f"{sha256}  {name}\n")


def refuse_unknown(sources: Mapping[Path, bytes]) -> None:
    """Raises UnknownCodeError, before any file is executed, if a plugin file of a run was never allowed or recorded."""
    unknown = {path: source for path, source in sources.items() if not _is_known(sha256_of(source))}
    if unknown:
        lines = [
            f"{path}: this run folder would have this file executed ({len(source.splitlines()):,} lines, SHA-256 "
            f"{sha256_of(source)[:12]})."
            for path, source in unknown.items()
        ]
        raise UnknownCodeError(
            "\n".join(lines) + "\nNo run that you made on this machine had such a file, and nothing was executed. If "
            "you have read it and trust it, add --trust; in Python vdmkit.load(..., trust=True)."
        )


def sha256_of(source: bytes) -> str:
    """Returns the SHA-256 of a plugin file's contents."""
    return hashlib.sha256(source).hexdigest()


def _is_known(sha256: str) -> bool:
    return sha256 in _known or _is_recorded(sha256)


def _is_recorded(sha256: str) -> bool:
    """Returns whether this user recorded the hash; other users of a shared cache could add or rename files."""
    try:
        record = _record_of(sha256)
        return is_own_file(record) and record.read_text().startswith(f"{sha256}  ")
    except (OSError, ValueError, DataError):
        return False


def _record_of(sha256: str) -> Path:
    return cache_folder() / "plugins" / sha256


ENTRY_POINT_GROUP = "vdmkit.plugins"
_loads: dict[str, bool] = {}  # whether each installed package could be loaded; each is tried once a process
_sources: dict[Path, bytes] = {}
_registered: dict[str, list[Component]] = {}  # components of each executed plugin file, by module name


def load_plugins(files: Iterable[str | Path] = ()) -> None:
    """Registers all components: vdmkit's own, those of installed packages, and those of `files`.

    An installed package that cannot be loaded only causes a warning, because the user may not need it.

    Raises:
        RegistryError: one of `files` does not load, or registers a name that is taken.
    """
    load_builtins()
    _load_installed()
    for file in files:
        _load_file(Path(file))


@contextmanager
def kept_plugins(files: Iterable[str | Path]) -> Iterator[None]:
    """Makes the plugin files that a run kept take precedence, in the block, over plugins that are installed or loaded.

    Raises:
        UnknownCodeError: one of `files` was never allowed or recorded; no file was executed.
        RegistryError: one of `files` does not load, or registers one of vdmkit's own names.
    """
    load_plugins()
    sources = {path: _source_of(path) for path in (Path(file).resolve() for file in files)}
    refuse_unknown(sources)
    components = [component for path, source in sources.items() for component in _components_of(path, source)]
    with in_front(components):
        yield


def copies_in(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Returns those of the user's plugin files that have an identical copy in `folder`, such as a run folder."""
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
    """Returns the entry points of a group, sorted by package and name.

    The order decides which of two packages gets a name, so it must not depend on the file system.
    """
    entries = importlib.metadata.entry_points(group=group)
    return sorted(entries, key=lambda entry: (package_of(entry), entry.name))


def package_of(entry: EntryPoint) -> str:
    """Returns the name of the package that defines an entry point."""
    return entry.dist.name if entry.dist else entry.value


def module_of(entry: EntryPoint) -> str:
    """Returns the top-level module that loading an entry point imports first."""
    return re.split(r"[.:]", entry.value)[0].strip()


def _load_installed() -> None:
    """Loads every package once, sorted by name, so that name clashes do not depend on the file system."""
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
        plugins: Names of all plugin modules, which are imported again by their own entry points.
    """
    before = set(sys.modules)
    try:
        with registering_as(name):
            for entry in entries:
                with loading(entry):
                    entry.load()
    except RegistryError as error:
        # A plugin imported by this one must be importable again, to register its components under its own name.
        for module in sys.modules.keys() - before:
            if module.partition(".")[0] in plugins:
                del sys.modules[module]
        warn_of(str(error))
        return False
    return True


def warn_of(message: str) -> None:
    """Warns about an installed package on one line, even if the error message has several."""
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
    """Executes the file, unless this process has executed the same contents before, and returns its components."""
    _sources[path] = source
    module_name = f"vdmkit_plugin_{path.stem}_{sha256_of(source)[:16]}"
    if module_name not in sys.modules:
        message = _one_message(f"--plugin {path}", "Repair it.")
        with registering_as(str(path)), collecting() as components, message:
            _execute(source, path, module_name)
        _registered[module_name] = components
    return _registered[module_name]


def _execute(source: bytes, path: Path, module_name: str) -> None:
    """Executes the source without importlib, which could use a stale .pyc and would write one next to the file."""
    module = sys.modules[module_name] = types.ModuleType(module_name)
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise


def loading(entry: EntryPoint) -> AbstractContextManager[None]:
    """Re-raises errors of an installed package in the block as a RegistryError that names the package."""
    return _one_message(f"plugin package {package_of(entry)!r} ({entry.value})", "Repair it, or uninstall it.")


@contextmanager
def _one_message(where: str, advice: str) -> Iterator[None]:
    """Turns every error in a plugin's code, including SystemExit, into a one-line message."""
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
    """Returns the line of the plugin's code that failed, or '' if no code was executed."""
    place = place_of(error, lambda file: "importlib" not in file)
    return "" if __file__ in place else place


COMMAND_GROUP = "vdmkit.commands"
T = TypeVar("T")


def plugin_commands(own: Collection[str]) -> dict[str, EntryPoint]:
    """Returns the commands of installed packages by name, without importing the packages.

    A name that is taken, by vdmkit or by an alphabetically earlier package, is skipped with a PluginWarning.

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
    """Returns the code folder of each installed package with components or commands, without importing it."""
    entries = [*entries_of(ENTRY_POINT_GROUP), *entries_of(COMMAND_GROUP)]
    found = {package_of(entry): find_spec(module_of(entry)) for entry in entries}
    return {name: Path(spec.origin).parent for name, spec in sorted(found.items()) if spec and spec.origin}


def load_command(entry: EntryPoint, make: Callable[[Callable[..., Any]], T]) -> T | None:
    """Applies `make` to a package's function; returns None with a PluginWarning if loading or `make` fails.

    If the module also registers components, all plugins are loaded first.
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
