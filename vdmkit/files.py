# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, whatever kills the process, and their SHA-256."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vdmkit.paths import not_a_file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Has the OSErrors of a block that writes `path` name it: of a failed write the system does not say where it was.

    The program prints them with what to do: see `vdmkit.errors.words_of`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # numpy says how much it wrote, and not why
            raise OSError(errno.ENOSPC, f"written in part only ({error})", str(path)) from error
        if error.filename is None or f".{path.name}." in str(error.filename):  # nobody knows the temporary name
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block ends without an error, and else is deleted.

    Several processes may write the same file at once: the last one to end wins.

    Raises:
        OSError: it cannot be written, or there is something at `path` that is not a file, such as a device.
    """
    if path.exists() and (reason := not_a_file(path)):
        raise FileExistsError(errno.EEXIST, reason, str(path))
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with writing(path):
            yield part
            os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, which becomes `path` when the block ends without an error, and else is deleted.

    Raises:
        OSError: it cannot be written, or there is something at `path` other than an empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(errno.EEXIST, "there already, and not an empty folder", str(path))
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with writing(path):
            part.mkdir()
            yield part
            os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text)


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Whole or not at all. A NaN is refused: it is not JSON."""
    write_text(path, json.dumps(facts, indent=2, allow_nan=False) + "\n")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
