# SPDX-License-Identifier: Apache-2.0
"""What a file from elsewhere may ask for: all limits, and one form of the refusal.

A genuine file is far below its limit. Beyond it, `TooMuch` is raised before memory or time is spent; readers put its
words behind the name of the file. `vdmkit.importers` and files `.vdmz` check more, which depends on their formats.

The cache folder, and what a path leads to: asked before anything is read, because a FIFO would wait for ever.

Atomic writes: a file is whole or absent, even if the process is killed. JSON by its type; the SHA-256 of files.

Arrays in files .npz from elsewhere, whose sizes are checked before numpy, which trusts their headers, reads them.
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

MAX_JSON = 2**26  # bytes; a manifest has a kilobyte for each session, and a large model's checksums a megabyte
MAX_KEPT = 2**30  # bytes that a run folder keeps about its images, 40 for each
MAX_METRICS = 2**28  # bytes of lines of JSON; a million of them have 200 million
MAX_RECIPE = 2**18  # bytes of TOML; the longest recipe of vdmkit has 2,000, and a grid of 10,000 steps 200,000
MAX_KEYS = 2_000  # of TOML, tables included; the longest recipe has about 60
MAX_BITS = 1_000  # of an integer in TOML, which is to have 64: for larger ones Python's words are not about the file
MAX_EXTENDED = 20  # recipes, each of which extends the next
MAX_PLUGIN = 2**24  # bytes of Python
MAX_IMAGE_FILE = 2**28  # bytes, compressed
MAX_IMAGE_PIXELS = 2**26  # 8192 x 8192
MAX_SCANNED_PIXELS = 10 * MAX_IMAGE_PIXELS  # of a JPEG, once for each scan, of which a progressive one has 10
MAX_UNPACKED = 2**28  # bytes of a tar archive; CIFAR-10's has 186 million
MAX_MEMBERS = 1_000  # of a tar archive; CIFAR-10's has 9
MAX_PICKLE_FILE = 2**31  # bytes; a batch of ImageNet 64x64 has 1.6 billion
MAX_PICKLE_OPERATIONS = 2_000_000  # of a data set; a batch of ImageNet has 400,000
MAX_MEASURED = 2**28  # bytes of the arrays of a measurement; of 50,000 images they have 4 million for each term
FREELY_UNPACKED = 2**26  # bytes of an array of npz, however well it is compressed; MNIST's have 47 million
MAX_COMPRESSION = 250  # unpacked bytes for each of a file of npz above that; photographs take 1 to 3, plain shapes 100

# Of checkpoints.
MAX_VALUES = 200_000  # containers, numbers, names and tensors; a U-Net with its optimizer's state has about 10,000
MAX_OPERATIONS = 1_000_000  # of a pickle; a tensor takes about 40, a module of EDM's pickles 150
MAX_DEPTH = 100  # containers within containers; EDM's modules take about 20
MAX_DIMENSIONS = 32


class TooMuch(Exception):
    """Says what a file asks for beyond a limit, in words that follow its name."""


def check_at_most(limit: int, found: int, what: str) -> None:
    """Raises TooMuch if `found`, a number of `what`, is above the limit."""
    if found > limit:
        raise TooMuch(f"it asks for {found:,} {what}, and vdmkit reads at most {limit:,}")


def check_depth(value: Any) -> None:
    """Raises TooMuch for more levels in JSON than vdmkit writes: Python's recursion ends at other depths each time."""
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
        return file.read(size)  # not `limit`: Python takes the memory before it reads


class Metered:
    """A stream of which at most `limit` bytes can be read, however few bytes it is made from."""

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

    Raises DataError if the user has no home folder, as in a container with a user of its own.
    """
    try:
        return Path(os.environ.get("VDMKIT_CACHE") or "~/.cache/vdmkit").expanduser()
    except RuntimeError:
        raise DataError("the cache folder: this user has no home folder. Set VDMKIT_CACHE to a folder.") from None


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


_SUFFIX = ".npy"


def read_measured(path: Path) -> "dict[str, np.ndarray]":
    """Returns the arrays that a measurement left, by name.

    Raises exceptions of many types if the file is damaged, and TooMuch or ValueError for more than a measurement has.
    """
    with zipfile.ZipFile(path) as archive:
        stored = archive.infolist()
        check_at_most(MAX_MEMBERS, len(stored), "arrays")
        check_at_most(MAX_MEASURED, sum(one.file_size for one in stored), "bytes when it is unpacked")
        for one in stored:
            if one.filename.endswith(_SUFFIX):
                _check_claim(path, archive, one.filename)
    import numpy as np  # `vdmkit --help` does without it

    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def check_claims(path: Path, name: str) -> None:
    """Raises TooMuch or ValueError if an array is larger than what is stored for it, or is there twice."""
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
