# SPDX-License-Identifier: Apache-2.0
"""Keeps compiled functions between commands, so that the second one starts sooner.

JAX believes what it reads from its cache: a changed entry may crash the process, and one of another function may be
run. What vdmkit keeps therefore begins with a SHA-256, and is compiled anew if that is wrong.
"""

import importlib.util
import os
import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from vdmkit.errors import DataError
from vdmkit.paths import cache_folder, is_own_file, may_be_written
from vdmkit.remembered import remember_in_commands, with_sha256, without_sha256

_OF_JAX = "jax._src.lru_cache"  # where JAX reads and writes its cache; it has no public place for a cache of one's own


def keep_compiled() -> None:
    """Lets JAX, which must not be loaded yet, keep compiled functions in the folder xla of the cache folder.

    JAX's own environment variables come first. Nothing is kept if there is no such folder, or it may not be written.
    """
    try:
        folder = cache_folder() / "xla"
    except DataError:
        return
    if not may_be_written(folder):
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # the checks compile many small ones
    if "jax" not in sys.modules:  # a process of the command's own
        remember_in_commands()
    if os.environ["JAX_COMPILATION_CACHE_DIR"] == str(folder) and "jax" not in sys.modules:
        sys.meta_path.insert(0, _WhenLoaded())
    # An entry that cannot be read or written, for example on a full disk, is compiled anew.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


class _WhenLoaded(MetaPathFinder):
    """Replaces JAX's cache while JAX is loaded by a command, because loading it here would slow all of them down."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != _OF_JAX:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                load(module)
                module.LRUCache = checked(module.LRUCache)

            spec.loader.exec_module = exec_module
        return spec


def checked(cache: type[Any]) -> type[Any]:
    """Returns JAX's class of caches with a SHA-256 of name and contents before every entry.

    An entry without it, truncated, changed or of another name, is deleted, so that JAX replaces it. Entries of other
    users are ignored, because they are programs.
    """

    class Checked(cache):
        def get(self, key: str) -> bytes | None:
            path = Path(self.path, f"{key}-cache")
            entry = super().get(key) if is_own_file(path) else None
            value = None if entry is None else without_sha256(key, entry)
            if entry is not None and value is None:
                path.unlink(missing_ok=True)
            return value

        def put(self, key: str, value: bytes) -> None:
            super().put(key, with_sha256(key, value))

    return Checked
