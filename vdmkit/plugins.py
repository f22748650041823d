# SPDX-License-Identifier: Apache-2.0
"""Components from outside: installed packages with a `vdmkit.plugins` entry point, and single Python files.

This module imports no JAX, but loading plugins does.
"""

import hashlib
import importlib.metadata
import sys
import traceback
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vdmkit.errors import RegistryError
from vdmkit.registry import load_builtins, registering_as

ENTRY_POINT_GROUP = "vdmkit.plugins"
_sources: dict[Path, bytes] = {}


def load_plugins(files: Iterable[str | Path] = ()) -> None:
    """Make all components known: vdmkit's own, those of installed packages, and those of `files`.

    Raises:
        RegistryError: one of them does not load; the message names the package or the file.
    """
    load_builtins()
    _load_installed()
    for file in files:
        _load_file(Path(file))


def plugin_packages() -> list[str]:
    """Names of the installed packages that bring plugins."""
    entries = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    return sorted({entry.dist.name for entry in entries if entry.dist})


def _load_installed() -> None:
    """Import every module named by an installed package's `vdmkit.plugins` entry point."""
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        distribution = entry.dist.name if entry.dist else entry.value
        with _loading(distribution, f"plugin package {distribution!r} ({entry.value})", "Repair it, or uninstall it."):
            entry.load()


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
    """Execute one Python file that registers components. Doing it, or a copy of it, twice does nothing."""
    path = path.resolve()
    if not path.is_file():
        raise RegistryError(f"--plugin {path}: no such file.")
    if path.suffix != ".py":
        raise RegistryError(f"--plugin {path} does not load: the name of a Python file ends in .py.")
    source = _sources[path] = path.read_bytes()
    module_name = f"vdmkit_plugin_{path.stem}_{hashlib.sha256(source).hexdigest()[:16]}"
    if module_name not in sys.modules:
        with _loading(str(path), f"--plugin {path}", "Repair it."):
            _execute(source, path, module_name)


def _execute(source: bytes, path: Path, module_name: str) -> None:
    """Not by importlib: it could find a stale .pyc, and would leave one beside the file."""
    module = sys.modules[module_name] = types.ModuleType(module_name)
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise


@contextmanager
def _loading(owner: str, where: str, advice: str) -> Iterator[None]:
    """Note who registers; turn whatever goes wrong in foreign code into one message."""
    try:
        with registering_as(owner):
            yield
    except RegistryError as error:
        raise RegistryError(f"{where} does not load: {error}") from error
    except Exception as error:
        found = f"{type(error).__name__}: {error}{_location(error)}"
        raise RegistryError(f"{where} does not load: {found}. {advice}") from error


def _location(error: Exception) -> str:
    """File and line of the plugin's code that failed, if it came to run."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames[-1].filename != __file__ else ""
