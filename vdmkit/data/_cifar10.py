# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 from its canonical Python archive, or from the folder extracted from it."""

import gzip
import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from vdmkit.data._download import download
from vdmkit.data._pickle import array_in, read_pickle, read_whole
from vdmkit.data._source import AbstractSource, Images, Split, identified
from vdmkit.errors import DataError
from vdmkit.io import MAX_MEMBERS, MAX_UNPACKED, Metered, cache_folder, check_at_most, file_sha256, not_a_file
from vdmkit.registry import register

_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_MEGABYTES = 170
_CLASSES = 10
_PIECE = 1 << 20
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
        sha256: Expected SHA-256 of the archive. If empty, a download must have the published one, and a `path` any.
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
            download(self.url, path, self.sha256.lower() or _SHA256)
        return path

    def _check_hash(self, path: Path) -> str:
        """Returns the archive's SHA-256, or "" for a folder."""
        expected = self.sha256.lower() or ("" if self.path else _SHA256)
        found = "" if path.is_dir() else file_sha256(path)
        if expected and found != expected:
            raise DataError(
                f"{path}: has SHA-256 {found or '(none, it is a folder)'}, expected {expected}. "
                "It is damaged or another file: delete it and fetch it anew, or correct data.sha256."
            )
        return found


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
            f"{path}: not a readable tar archive, or a truncated one ({reason}). Fetch it anew; "
            "data.path is the canonical cifar-10-python.tar.gz or the folder extracted from it."
        ) from error
    return _in_order(files, path, split)


def _check_plain(member: tarfile.TarInfo, is_second: bool) -> None:
    """Raises ValueError for a file that is there twice, or sparse: of such a one, zeros are not in the archive."""
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
            raise DataError(f"{file}: {reason}. Extract the CIFAR-10 python archive anew.")
    return _in_order({file.name: read_whole(file) for file in there}, path, split)


def _in_order(files: dict[str, bytes], path: Path, split: Split) -> dict[str, bytes]:
    missing = [name for name in _FILES[split] if name not in files]
    if missing:
        raise DataError(
            f"{path}: holds no {', '.join(missing)}, expected {', '.join(_FILES[split])}. "
            "It is truncated, or not the CIFAR-10 python archive: fetch it anew."
        )
    return {name: files[name] for name in _FILES[split]}


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _pixels(table: dict[bytes, Any], where: str) -> UInt8[np.ndarray, "n 32 32 3"]:
    rows = array_in(table, b"data", where)
    if rows.ndim != 2 or rows.shape[1] != 3072:
        raise DataError(f"{where}: array of shape {rows.shape}, expected (n, 3072): fetch the file anew.")
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # a row holds the R, G and B planes


def _labels(table: dict[bytes, Any], where: str) -> Int[np.ndarray, " n"] | None:
    """Returns the labels, or None if the file has no labels."""
    if (labels := table.get(b"labels")) is None:
        return None
    if not isinstance(labels, list) or not all(isinstance(label, int) and 0 <= label < _CLASSES for label in labels):
        raise DataError(f"{where}: no list of labels 0 to 9 at key b'labels'. Fetch the file anew.")
    return np.array(labels, np.int64)


def _joined(parts: list[Int[np.ndarray, " _"] | None]) -> Int[np.ndarray, " m"] | None:
    known = [labels for labels in parts if labels is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
