# SPDX-License-Identifier: Apache-2.0
"""The cache folder, and what a path leads to: asked before anything is read, because a FIFO would wait for ever."""

import os
import stat
from pathlib import Path
from typing import Literal

from vdmkit.errors import DataError

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def cache_folder() -> Path:
    """Returns $VDMKIT_CACHE, or ~/.cache/vdmkit. The folder may not exist yet.

    Raises DataError if the user has no home folder, as in a container with a user of its own.
    """
    try:
        return Path(os.environ.get("VDMKIT_CACHE") or "~/.cache/vdmkit").expanduser()
    except RuntimeError:
        raise DataError("the cache folder: this user has no home folder. Set VDMKIT_CACHE to a folder.") from None


def existing_part_of(path: Path) -> Path:
    """Returns the path, or the nearest folder above it that exists."""
    return next(parent for parent in (path, *path.parents) if os.path.exists(parent))


def may_be_written(folder: Path) -> bool:
    """Returns whether files can be made in the folder, which may not exist yet."""
    there = existing_part_of(folder)
    return os.path.isdir(there) and os.access(there, os.W_OK)


def not_a_file(path: Path) -> str | None:
    """Returns None for a regular file, links followed, and else says what the path leads to.

    The words go between the path and the advice of a message: f"{path}: {not_a_file(path)}. Set data.path to ..."
    """
    return _other_than("file", path)


def not_a_folder(path: Path) -> str | None:
    """Returns None for a folder, links followed, and else says what the path leads to."""
    return _other_than("folder", path)


def is_own_file(path: Path) -> bool:
    """Returns whether the path leads to a file of this user; others may write into a cache folder that is shared."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _other_than(wanted: Literal["file", "folder"], path: Path) -> str | None:
    try:
        found = _KINDS.get(stat.S_IFMT(path.stat().st_mode), "something unknown")
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else f"no such {wanted}"
    except OSError as error:  # a loop of links, a file where a folder should be, a folder that may not be entered
        return f"cannot be reached ({error.strerror})"
    except ValueError:  # a null byte, which each version of Python words in its own way
        return "not a path that a file system can hold"
    return None if found == f"a {wanted}" else f"{found}, where a {wanted} is expected"
