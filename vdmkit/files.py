# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: a file is whole or absent, even if the process is killed. JSON by its type; the SHA-256 of files."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vdmkit.foreign import MAX_JSON, TooMuch, read_at_most
from vdmkit.paths import not_a_file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Adds `path` to the OSErrors of a block that writes it, because a failed write does not report its file.

    The program prints them with `vdmkit.errors.words_of`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # numpy reports how much it wrote, without the reason
            raise OSError(errno.ENOSPC, f"written in part only ({error})", str(path)) from error
        if error.filename is None or f".{path.name}." in str(error.filename):  # not the temporary name
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name, which is renamed to `path` when the block succeeds and deleted when it fails.

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
    """Yields a temporary folder, which is renamed to `path` when the block succeeds and deleted when it fails.

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
    """Writes text atomically."""
    with whole_file(path) as part:
        part.write_text(text)


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Writes JSON atomically. Raises ValueError for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(facts, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, kind: Any, missing: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Reads JSON as a type that pydantic knows, strictly.

    Args:
        path: The file.
        kind: A type such as `dict[str, int]`, or a dataclass.
        missing: Values of keys that the file may lack.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, is too large, has NaN or infinities, or is of another type. The message says where.
    """
    from pydantic import TypeAdapter, ValidationError  # here, because `vdmkit --help` would wait for it

    try:
        found = TypeAdapter(Any).validate_json(read_at_most(path, MAX_JSON))
        found = {**missing, **found} if isinstance(found, dict) else found
        return TypeAdapter(kind).validate_json(json.dumps(found, allow_nan=False), strict=True)
    except TooMuch as error:
        raise ValueError(str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
