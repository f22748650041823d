# SPDX-License-Identifier: Apache-2.0
"""File input and output: size limits for untrusted files, the cache folder, atomic writes, checksums and `.npz` files.

- Limits. Genuine files are far below them. A file above a limit raises `TooMuch` before memory or time is spent, and
  the reader puts the file name in front of the message. `vdmkit.importers` and the `.vdmz` format add limits of their
  own.
- Paths. `not_a_file` and `not_a_folder` run before anything is read, because reading a FIFO would block forever.
- Atomic writes. A file is complete or absent, even if the process is killed.
- JSON is validated against a type; results and records carry a checksum (CRC-32 or SHA-256).
- Arrays in `.npz` files. Their sizes are checked before numpy reads them, because numpy trusts their headers.
"""

import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from vdmkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np

MAX_JSON = 2**26  # bytes; a manifest takes 1 kB a session, the checksums of a large model 1 MB
MAX_KEPT = 2**30  # bytes of the records of training images, 40 an image
MAX_METRICS = 2**28  # bytes of JSON lines; a million lines take 200 million
MAX_RECIPE = 2**18  # bytes of TOML; the longest shipped recipe has 2,000, a grid of 10,000 steps 200,000
MAX_KEYS = 2_000  # TOML keys, tables included; the longest recipe has about 60
MAX_BITS = 1_000  # of a TOML integer, which should have 64; Python's own error beyond 4,300 digits is unhelpful
MAX_EXTENDED = 20  # length of a chain of `extends`
MAX_PLUGIN = 2**24  # bytes of Python
MAX_IMAGE_FILE = 2**28  # bytes, compressed
MAX_IMAGE_PIXELS = 2**26  # 8192 x 8192
MAX_SCANNED_PIXELS = 10 * MAX_IMAGE_PIXELS  # pixels of a JPEG times its scans; a progressive JPEG has 10
MAX_UNPACKED = 2**28  # bytes of a tar archive; CIFAR-10 has 186 million
MAX_MEMBERS = 1_000  # files in a tar archive; CIFAR-10 has 9
MAX_PICKLE_FILE = 2**31  # bytes; a batch of ImageNet 64x64 has 1.6 billion
MAX_PICKLE_OPERATIONS = 2_000_000  # opcodes in the pickle of a data set; a batch of ImageNet has 400,000
MAX_MEASURED = 2**28  # bytes of a measurement's arrays; 50,000 images take 4 million a term
FREELY_UNPACKED = 2**26  # bytes of an array in .npz at any compression ratio; MNIST has 47 million
MAX_COMPRESSION = 250  # largest compression ratio above that size; photographs have 1 to 3, plain shapes 100

# Limits of checkpoints.
MAX_VALUES = 200_000  # containers, numbers, names and tensors; a U-Net with its optimizer's state has about 10,000
MAX_OPERATIONS = 1_000_000  # opcodes of a pickle; a tensor takes about 40, a module in EDM's pickles 150
MAX_DEPTH = 100  # of nested containers; EDM's modules take about 20
MAX_DIMENSIONS = 32


class TooMuch(Exception):
    """A file exceeds a limit. The message is written to follow the name of the file."""


def check_at_most(limit: int, found: int, what: str) -> None:
    """Raises TooMuch if `found`, a count of `what`, is above `limit`."""
    if found > limit:
        raise TooMuch(f"it needs {found:,} {what}, and vdmkit reads at most {limit:,}")


def check_depth(value: Any) -> None:
    """Raises TooMuch if JSON is nested more deeply than vdmkit writes, whatever Python's recursion limit is."""
    level, depth = [value], 0
    while level:
        check_at_most(MAX_DEPTH, depth, "levels of lists within lists")
        parts = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level, depth = [part for of_one in parts for part in of_one], depth + 1


def read_at_most(path: Path, limit: int) -> bytes:
    """Returns the contents of a file. Raises TooMuch if it is larger, as a sparse file may be."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        check_at_most(limit, size, "bytes")
        return file.read(size)  # not `limit`: Python allocates the memory before it reads


class Metered:
    """A stream from which at most `limit` bytes can be read, however small its compressed form is."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit, self._read = stream, limit, 0

    def read(self, n: int) -> bytes:
        """Returns at most n bytes. Raises TooMuch beyond the limit."""
        data = self._stream.read(n)
        self._read += len(data)
        check_at_most(self._limit, self._read, "bytes when it is unpacked")
        return data


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

    Raises DataError if the user has no home folder, as may happen in a container.
    """
    try:
        return Path(os.environ.get("VDMKIT_CACHE") or "~/.cache/vdmkit").expanduser()
    except RuntimeError:
        raise DataError("the cache folder: this user has no home folder. Set VDMKIT_CACHE to a folder.") from None


def not_a_file(path: Path) -> str | None:
    """Returns None for a regular file (links are followed), and otherwise a description of what the path points to.

    The description is part of a message: f"{path}: {not_a_file(path)}. Set data.path to ..."
    """
    return _other_than("file", path)


def not_a_folder(path: Path) -> str | None:
    """Returns None for a folder (links are followed), and otherwise a description of what the path points to."""
    return _other_than("folder", path)


def is_own_file(path: Path) -> bool:
    """Returns whether the path points to a file owned by this user, since others may write to a shared cache folder."""
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
    except ValueError:  # a null byte; the message depends on the version of Python
        return "not a path that a file system can hold"
    return None if found == f"a {wanted}" else f"{found}, where a {wanted} is expected"


_CHECKSUM = "crc32"
_COMMENT = f"# {_CHECKSUM} of the rest: "


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Adds `path` to OSErrors raised in the block that writes it, because a failed write does not report its file.

    `vdmkit.errors.words_of` turns such an error into the message that the program prints.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # numpy reports the number of bytes written, without the reason
            raise OSError(errno.ENOSPC, f"written in part only ({error})", str(path)) from error
        if error.filename is None or f".{path.name}." in str(error.filename):  # not the temporary name
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to `path` when the block succeeds and deleted when it fails.

    Several processes may write the same file at once: the last one to finish wins.

    Raises:
        OSError: the file cannot be written, or `path` exists and is not a regular file.
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

    Temporary folders of the same `path` left by killed processes are deleted. Parent folders are created.

    Raises:
        OSError: the folder cannot be written, or `path` exists and is not an empty folder.
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
    """Deletes a folder unless a process holds its lock or the file system does not support locks."""
    with suppress(OSError), locked_folder(folder, BlockingIOError()) as problem:
        if problem is None:
            shutil.rmtree(folder)


@contextmanager
def locked_folder(path: Path, busy: Exception) -> Iterator[str | None]:
    """Creates a folder and locks it for this process. The operating system releases the lock however the process ends.

    Yields None, or the reason why the folder is not locked, for example on NFS, which cannot lock folders. Raises
    `busy` if a different process holds the lock.
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
    """Writes JSON atomically. Raises ValueError for NaN and infinities, which JSON cannot represent."""
    write_text(path, json.dumps(facts, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, kind: Any, missing: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Reads JSON and validates it strictly against a type that pydantic supports.

    Args:
        path: The file.
        kind: A type such as `dict[str, int]`, or a dataclass.
        missing: Default values of keys that the file may omit.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, is too large, contains NaN or infinities, or does not match the type. The message
            says where.
    """
    from pydantic import TypeAdapter, ValidationError

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
    """Returns the SHA-256 of the facts, which is stored next to them under the key "sha256"."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_seal(facts: Mapping[str, Any]) -> None:
    """Raises ValueError if the facts do not match their "sha256"; files of older versions have no such key."""
    name = "sha256" if "sha256" in facts else next(reversed(list(facts)), "")  # the damage may be in the key itself
    is_right = facts.get(name) == seal_of({other: value for other, value in facts.items() if other != name})
    if is_right != (name == "sha256"):
        raise ValueError("its facts are not those that were written")


def write_results(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes JSON atomically, including a checksum that `are_intact` verifies."""
    values = json.loads(json.dumps(facts, allow_nan=False))
    write_json(path, {**values, _CHECKSUM: _crc32(values)})


def are_intact(results: Mapping[str, Any]) -> bool:
    """Returns whether the results match their checksum; files of older versions have no checksum."""
    if not results:
        return True
    *facts, (name, last) = results.items()
    if name == _CHECKSUM:
        return last == _crc32(dict(facts))
    return _CHECKSUM not in results and last != _crc32(dict(facts))  # the damage may be in the key itself


def sealed_text(text: str) -> str:
    """Returns TOML preceded by a comment with its checksum, which `check_sealed_text` verifies."""
    return f"{_COMMENT}{zlib.crc32(text.encode())}\n{text}"


def check_sealed_text(text: str) -> None:
    """Raises ValueError if the text does not match its checksum comment. Text without such a comment passes."""
    first, _, rest = text.partition("\n")
    if first.startswith(_COMMENT) and first != sealed_text(rest).partition("\n")[0]:
        raise ValueError("it is not as it was written; if it was changed on purpose, delete its first line")


def sealed_line(values: Mapping[str, Any]) -> str:
    """Returns a line of JSON that includes a checksum of its values."""
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
    """Returns whether the file exists and has this SHA-256.

    Files above MAX_KEPT bytes are not read, because a sparse file may be huge.
    """
    return path.is_file() and path.stat().st_size <= MAX_KEPT and file_sha256(path) == sha256


def sha256_in(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file in a folder by name, except hidden files."""
    return {path.name: file_sha256(path) for path in sorted(folder.glob("[!.]*")) if path.is_file()}


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_SUFFIX = ".npy"


def read_measured(path: Path) -> "dict[str, np.ndarray]":
    """Returns the arrays that a measurement stored, by name.

    Raises exceptions of many types if the file is damaged, and TooMuch or ValueError if it holds more than a
    measurement.
    """
    with zipfile.ZipFile(path) as archive:
        stored = archive.infolist()
        check_at_most(MAX_MEMBERS, len(stored), "arrays")
        check_at_most(MAX_MEASURED, sum(one.file_size for one in stored), "bytes when it is unpacked")
        for one in stored:
            if one.filename.endswith(_SUFFIX):
                _check_claim(path, archive, one.filename)
    import numpy as np  # keeps `vdmkit --help` fast

    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def check_claims(path: Path, name: str) -> None:
    """Raises TooMuch or ValueError if an array is larger than its stored data allow, or occurs twice."""
    with zipfile.ZipFile(path) as archive:
        if (file := f"{name}{_SUFFIX}") in archive.namelist():
            _check_claim(path, archive, file)


def _check_claim(path: Path, archive: zipfile.ZipFile, file: str) -> None:
    import numpy as np

    if archive.namelist().count(file) > 1:
        raise ValueError("it is there twice")
    stored = archive.getinfo(file).file_size
    with archive.open(file) as entry:
        version = np.lib.format.read_magic(entry)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(entry)
        claimed = math.prod(shape) * dtype.itemsize + entry.tell()
    if claimed != stored and not dtype.hasobject:
        raise ValueError(f"its shape {shape} takes {claimed:,} bytes, and {stored:,} are there")
    check_at_most(max(FREELY_UNPACKED, MAX_COMPRESSION * path.stat().st_size), stored, "bytes when it is unpacked")
