# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 from its canonical Python archive, or from the folder extracted from it, and a reader of its pickles.

A pickle is a program that looks up functions by name and calls them. This reader accepts five names and replaces them
by classes of this file that only hold bytes, so nothing in a pickle is executed. It uses the unpickler written in
Python: the one in C allocates sixteen gigabytes for a six-byte pickle with a large memo index, and its operations
cannot be counted.
"""

import gzip
import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from vdmkit.data.sources import AbstractSource, Images, Split, identified
from vdmkit.errors import DataError
from vdmkit.io import (
    MAX_MEMBERS,
    MAX_PICKLE_FILE,
    MAX_PICKLE_OPERATIONS,
    MAX_UNPACKED,
    Metered,
    TooMuch,
    cache_folder,
    check_at_most,
    file_sha256,
    not_a_file,
    read_at_most,
)
from vdmkit.registry import register

_InPython: Any = pickle._Unpickler  # type: ignore[attr-defined]
_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_MEGABYTES = 170
_CLASSES = 10
_PIECE = 1 << 20
_TIMEOUT_SECONDS = 60
_FILES: dict[Split, tuple[str, ...]] = {
    "train": ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    "test": ("test_batch",),
}
# Hashes of the extracted files, as torchvision publishes them: an extracted folder has no archive to hash.
_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


@register("data", "cifar10")
@dataclass(frozen=True, kw_only=True)
class Cifar10(AbstractSource):
    """CIFAR-10: 32x32 colour images, 50,000 for training and 10,000 for testing (Krizhevsky 2009).

    Args:
        path: cifar-10-python.tar.gz, or the folder cifar-10-batches-py extracted from it. If empty, the archive
            in the cache folder ($VDMKIT_CACHE or ~/.cache/vdmkit), downloaded if it is missing.
        url: Address of the download.
        sha256: Expected SHA-256 of the archive. If empty, a download is checked against the published hash, and the
            archive at `path` is not checked.
    """

    path: str = ""
    url: str = _URL
    sha256: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        return (32, 32, 3)

    @property
    def levels(self) -> int:
        return 256

    @property
    def classes(self) -> int:
        return _CLASSES

    def locate(self) -> str:
        path = self._path()
        if not self.path and not path.exists():
            return f"{_MEGABYTES} MB from {self.url}" if self.url == _URL else self.url
        _require(path)
        if path.is_dir():
            for split in _FILES:
                _read_folder(path, split)
        return ""

    def load(self, split: Split) -> Images:
        path = self._path() if self.path else self._downloaded()
        _require(path)
        known = self._check_hash(path) == _SHA256
        files = _read_folder(path, split) if path.is_dir() else _read_archive(path, split)
        known = known or all(_md5(data) == _MD5[name] for name, data in files.items())
        tables = {f"{path}: {name}": read_pickle(data, f"{path}: {name}") for name, data in files.items()}
        pixels = np.concatenate([_pixels(table, where) for where, table in tables.items()])
        labels = [_labels(table, where) for where, table in tables.items()]
        published = "CIFAR-10" if known else None
        return identified(pixels, 256, name="cifar10", split=split, published=published, labels=_joined(labels))

    def _path(self) -> Path:
        return Path(self.path).expanduser() if self.path else cache_folder() / "cifar-10-python.tar.gz"

    def _downloaded(self) -> Path:
        path = self._path()
        if not path.exists():
            _download(self.url, path, self.sha256.lower() or _SHA256)
        return path

    def _check_hash(self, path: Path) -> str:
        """Returns the archive's SHA-256, or "" for a folder."""
        expected = self.sha256.lower() or ("" if self.path else _SHA256)
        found = "" if path.is_dir() else file_sha256(path)
        if expected and found != expected:
            raise DataError(
                f"{path}: has SHA-256 {found or '(none, it is a folder)'}, expected {expected}. "
                "It is damaged or another file: delete it and fetch it again, or correct data.sha256."
            )
        return found


def _download(url: str, path: Path, sha256: str) -> None:
    """Downloads `url` to `path`, with a progress bar on standard error; a file with a different hash is deleted."""
    import pooch
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    pooch.get_logger().setLevel("WARNING")
    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as shown:
            bar: Any = _Bar(shown, shown.add_task(f"downloading {url}", total=None))
            # Otherwise a server may compress the archive again for the transfer, and the hash would differ.
            as_is = {"Accept-Encoding": "identity"}
            downloader: Any = pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT_SECONDS, headers=as_is)
            pooch.retrieve(url, sha256, path.name, path.parent, downloader=downloader)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{url}: cannot be downloaded to {path} ({error}). Check the network, the `url` and the free space, or "
            "give the `path` of a file that you have."
        ) from error


@dataclass
class _Bar:
    """Progress bar in the form that pooch updates."""

    shown: Any
    task: Any
    total: int = 0

    def update(self, n: int) -> None:
        self.shown.update(self.task, total=self.total or None, advance=n)

    def reset(self) -> None:
        self.shown.reset(self.task)

    def close(self) -> None:
        pass


def _require(path: Path) -> None:
    if not path.is_dir() and (reason := not_a_file(path)):
        raise DataError(f"{path}: {reason}. Give data.path = the CIFAR-10 python archive, or leave it empty.")


def _read_archive(path: Path, split: Split) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with _unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE) as tar:
            for count, member in enumerate(tar, 1):
                check_at_most(MAX_MEMBERS, count, "files in it")
                check_at_most(MAX_UNPACKED, member.size, "bytes when it is unpacked")
                name = PurePosixPath(member.name).name
                if name in _FILES[split] and member.isreg() and (file := tar.extractfile(member)):
                    _check_plain(member, name in files)
                    files[name] = file.read()
            while stream.read(_PIECE):  # read to the end, where gzip keeps its checksum
                pass
    except Exception as error:  # a damaged archive raises errors of tarfile, gzip, zlib, ...
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: not a readable tar archive, or a truncated one ({reason}). Fetch it again; "
            "data.path is the canonical cifar-10-python.tar.gz or the folder extracted from it."
        ) from error
    return _in_order(files, path, split)


def _check_plain(member: tarfile.TarInfo, is_second: bool) -> None:
    """Raises ValueError for a duplicate file, or a sparse one, whose zeros are not stored in the archive."""
    if is_second or member.issparse():
        raise ValueError(f"{member.name} is {'there twice' if is_second else 'a sparse file'}")


@contextmanager
def _unpacked(path: Path) -> Iterator[Any]:
    """Opens a tar archive, with or without gzip, as a `Metered` stream."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if gzipped else nullcontext(file) as stream:
            yield Metered(stream, MAX_UNPACKED)


def _read_folder(path: Path, split: Split) -> dict[str, bytes]:
    there = [path / name for name in _FILES[split] if (path / name).exists()]
    for file in there:
        if reason := not_a_file(file):
            raise DataError(f"{file}: {reason}. Extract the CIFAR-10 python archive again.")
    return _in_order({file.name: read_whole(file) for file in there}, path, split)


def _in_order(files: dict[str, bytes], path: Path, split: Split) -> dict[str, bytes]:
    missing = [name for name in _FILES[split] if name not in files]
    if missing:
        raise DataError(
            f"{path}: holds no {', '.join(missing)}, expected {', '.join(_FILES[split])}. "
            "It is truncated, or not the CIFAR-10 python archive: fetch it again."
        )
    return {name: files[name] for name in _FILES[split]}


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _pixels(table: dict[bytes, Any], where: str) -> UInt8[np.ndarray, "n 32 32 3"]:
    rows = array_in(table, b"data", where)
    if rows.ndim != 2 or rows.shape[1] != 3072:
        raise DataError(f"{where}: array of shape {rows.shape}, expected (n, 3072): fetch the file again.")
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # a row holds the R, G and B planes


def _labels(table: dict[bytes, Any], where: str) -> Int[np.ndarray, " n"] | None:
    """Returns the labels, or None if the file has no labels."""
    if (labels := table.get(b"labels")) is None:
        return None
    if not isinstance(labels, list) or not all(isinstance(label, int) and 0 <= label < _CLASSES for label in labels):
        raise DataError(f"{where}: no list of labels 0 to 9 at key b'labels'. Fetch the file again.")
    return np.array(labels, np.int64)


def _joined(parts: list[Int[np.ndarray, " _"] | None]) -> Int[np.ndarray, " m"] | None:
    known = [labels for labels in parts if labels is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def read_whole(path: Path) -> bytes:
    """Returns the contents of a file. Raises DataError if it is larger than any file of the data set."""
    try:
        return read_at_most(path, MAX_PICKLE_FILE)
    except TooMuch as error:
        raise DataError(f"{path}: {error}. Fetch the file again.") from error


def read_pickle(data: bytes, where: str) -> dict[bytes, Any]:
    """Returns the dictionary in a Python 2 or 3 pickle of uint8 arrays, lists, strings and numbers.

    Keys are `bytes`, as strings of Python 2 are; arrays are found with `array_in`.

    Args:
        data: The pickle.
        where: Name of the pickle in error messages.

    Raises:
        DataError: the pickle is damaged, contains anything else, or is not a dictionary.
    """
    try:
        value = _Unpickler(data).load()
        table = {_as_bytes(key): item for key, item in value.items()} if isinstance(value, dict) else None
    except Exception as error:  # a damaged pickle raises errors of many types
        raise DataError(
            f"{where}: not a pickle of plain arrays, lists, strings and numbers ({error}). Nothing in it was executed. "
            "Fetch the file again from a source that you trust."
        ) from error
    if table is None:
        raise DataError(f"{where}: holds a {type(value).__name__}, expected a dictionary. Fetch the file again.")
    return table


def _as_bytes(key: Any) -> Any:
    return key.encode() if isinstance(key, str) else key


def array_in(table: dict[bytes, Any], key: bytes, where: str) -> Shaped[np.ndarray, "..."]:
    """Returns the uint8 array at `key` of a dictionary of `read_pickle`. Raises DataError if it is missing."""
    array = getattr(table.get(key), "array", None)
    if array is None:
        raise DataError(f"{where}: no array of uint8 at key {key!r}. Fetch the file again.")
    return array


class _Unpickler(_InPython):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.dispatch = _Counted(super().dispatch)
        del self.dispatch[pickle.BYTEARRAY8[0]]  # allocates the declared size before it reads
        self._stand_ins = _STAND_INS | {("_codecs", "encode"): _Encode(len(data))}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._stand_ins[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}") from None


class _Counted(dict[int, Any]):
    """Table of the unpickler's operations that counts look-ups; each operation is looked up once per step."""

    steps = 0

    def __getitem__(self, code: int) -> Any:
        self.steps += 1
        check_at_most(MAX_PICKLE_OPERATIONS, self.steps, "operations of a pickle")
        return super().__getitem__(code)


# Each replacement defines __setstate__, because pickle sets arbitrary attributes on an object without it.


class _Dtype:
    """Replaces numpy.dtype. Only uint8 is read, so the state (byte order, alignment) is ignored."""

    def __init__(self, code: object, *flags: object) -> None:
        self.is_uint8 = code in ("u1", b"u1")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Replaces numpy.ndarray, and the function that pickles call to make an empty one."""

    def __init__(self, *ignored: object) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, data = state
        if not (isinstance(dtype, _Dtype) and isinstance(data, bytes)):
            raise pickle.UnpicklingError("it holds an array of objects")
        if not dtype.is_uint8:
            return  # such as the mean image that is stored with ImageNet's pixels
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _Encode:
    """Replaces _codecs.encode, which Python 3 uses for bytes in protocol 2. Limits the bytes that are encoded."""

    def __init__(self, limit: int) -> None:
        self._limit, self._encoded = limit, 0

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
        self._encoded += len(text)
        check_at_most(self._limit, self._encoded, "bytes of text that it has once")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}
