# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: a file is whole or absent, even if the process is killed. JSON by its type; the SHA-256 of files."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vdmkit.foreign import MAX_JSON, MAX_KEPT, TooMuch, read_at_most
from vdmkit.paths import not_a_file

_CHECKSUM = "crc32"
_COMMENT = f"# {_CHECKSUM} of the rest: "


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

    Those of the same `path` that killed processes left are deleted. Folders above it are made.

    Raises:
        OSError: it cannot be written, or there is something at `path` other than an empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(errno.EEXIST, "there already, and not an empty folder", str(path))
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        _delete_unlocked(left)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with writing(path), locked_folder(part, FileExistsError(errno.EEXIST, "in use", str(part))):
            yield part
            os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _delete_unlocked(folder: Path) -> None:
    """Deletes a folder unless a process has locked it, or the file system has no locks."""
    with suppress(OSError), locked_folder(folder, BlockingIOError()) as problem:
        if problem is None:
            shutil.rmtree(folder)


@contextmanager
def locked_folder(path: Path, busy: Exception) -> Iterator[str | None]:
    """Makes and locks a folder for this process; the system releases the lock however the process ends.

    Yields None, or why it is not locked: NFS, for example, locks no folders. Raises `busy` if another process has it.
    """
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _lock(descriptor, busy)
    finally:
        os.close(descriptor)
        if made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()  # refused before anything was written


def _lock(descriptor: int, busy: Exception) -> str | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError as error:
        return f"this file system has no locks ({error.strerror})"
    return None


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


def seal_of(facts: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of facts, which is written beside them as "sha256"."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_seal(facts: Mapping[str, Any]) -> None:
    """Raises ValueError if facts are not those of their "sha256"; files of older versions have none."""
    name = "sha256" if "sha256" in facts else next(reversed(list(facts)), "")  # it may be the name that changed
    is_right = facts.get(name) == seal_of({other: value for other, value in facts.items() if other != name})
    if is_right != (name == "sha256"):
        raise ValueError("its facts are not those that were written")


def write_results(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes JSON atomically with a checksum of it: see `are_intact`."""
    values = json.loads(json.dumps(facts, allow_nan=False))
    write_json(path, {**values, _CHECKSUM: _crc32(values)})


def are_intact(results: Mapping[str, Any]) -> bool:
    """Returns whether results are those that were written; files of older versions have no checksum."""
    if not results:
        return True
    *facts, (name, last) = results.items()
    if name == _CHECKSUM:
        return last == _crc32(dict(facts))
    return _CHECKSUM not in results and last != _crc32(dict(facts))  # it may be the name of the checksum that changed


def sealed_text(text: str) -> str:
    """Returns TOML after a comment with a checksum of it: see `check_sealed_text`."""
    return f"{_COMMENT}{zlib.crc32(text.encode())}\n{text}"


def check_sealed_text(text: str) -> None:
    """Raises ValueError if text is not as `sealed_text` left it; text that others wrote does not begin like that."""
    first, _, rest = text.partition("\n")
    if first.startswith(_COMMENT) and first != sealed_text(rest).partition("\n")[0]:
        raise ValueError("it is not as it was written; if it was changed on purpose, delete its first line")


def sealed_line(values: Mapping[str, Any]) -> str:
    """Returns a line of JSON with a checksum of it."""
    return json.dumps({**values, _CHECKSUM: _crc32(values)}) + "\n"


def _crc32(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values).encode())


def read_sealed_line(line: str) -> dict[str, Any] | None:
    """Returns the values of a line, or None if it is damaged; lines of older versions have no checksum."""
    try:
        values = json.loads(line)
        if values.get(_CHECKSUM) is None:
            return values if are_intact(values) else None
        del values[_CHECKSUM]
        return values if sealed_line(values) == line else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def has_sha256(path: Path, sha256: str) -> bool:
    """Returns whether there is a file with these contents, of at most MAX_KEPT bytes: a sparse one may be endless."""
    return path.is_file() and path.stat().st_size <= MAX_KEPT and file_sha256(path) == sha256


def sha256_in(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of the files in a folder, but for hidden ones, by name."""
    return {path.name: file_sha256(path) for path in sorted(folder.glob("[!.]*")) if path.is_file()}


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
