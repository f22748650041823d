# SPDX-License-Identifier: Apache-2.0
"""Keeps compiled functions between commands, so that the second one starts sooner."""

import os
import warnings
from pathlib import Path

from vdmkit.errors import DataError
from vdmkit.paths import cache_folder


def keep_compiled() -> None:
    """Lets JAX, which must not be loaded yet, keep compiled functions in the folder xla of the cache folder.

    JAX's own environment variables come first. Nothing is kept if there is no such folder, or it may not be written.
    """
    try:
        folder = cache_folder() / "xla"
    except DataError:
        return
    if not _may_be_written(folder):
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # the checks compile many small ones
    # An entry that another process has half written is compiled anew.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _may_be_written(folder: Path) -> bool:
    there = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    return os.path.isdir(there) and os.access(there, os.W_OK)
