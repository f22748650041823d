# SPDX-License-Identifier: Apache-2.0
"""Files of many images each: .npy, which every tool reads, or array_record, which compresses each image by itself."""

import functools
import io
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Int, Real
from numpy.lib.format import write_array_header_1_0

from vdmkit.data._pixels import AbstractPixels
from vdmkit.errors import DataError
from vdmkit.io import whole_file

if TYPE_CHECKING:
    from array_record.python.array_record_module import ArrayRecordReader

Format = Literal["npy", "array_record"]
FORMATS: tuple[Format, ...] = get_args(Format)
_OPEN_AT_ONCE = 128  # readers of array_record, each with an index of its file
_VERIFY = "Find the damage with `vdmkit data verify`."


def write_shard(path: Path, file_format: Format, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Writes images, given in blocks whose sizes add up to `shape`, to one file.

    Raises:
        OSError: the file cannot be written.
    """
    with whole_file(path) as part:
        write = _write_npy if file_format == "npy" else _write_records
        write(part, shape, blocks)


def _write_npy(path: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    with path.open("wb") as file:
        for number, block in enumerate(blocks):
            if not number:
                file.write(_header(shape, block.dtype))
            file.write(np.ascontiguousarray(block).data)


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    file = io.BytesIO()
    write_array_header_1_0(file, {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _write_records(path: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    try:
        writer = ArrayRecordWriter(str(path), "group_size:1")  # else reading one image would decode many
        for block in blocks:
            for image in block:
                writer.write(image.tobytes())
        writer.close()
    except RuntimeError as error:  # the library has no other for a full disk
        raise OSError(None, f"cannot be written ({error})", str(path)) from error


@dataclass(frozen=True, repr=False)
class Shards(AbstractPixels):
    """The images in some files, in order. Files are opened for every access and read, not mapped into memory.

    Args:
        files: The files, and the number of images in each.
        file_format: Their format.
        image: Shape of an image.
        kind: Type of its values.
    """

    files: tuple[tuple[Path, int], ...]
    file_format: Format
    image: tuple[int, int, int]
    kind: np.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (int(self._ends[-1]), *self.image)

    @property
    def dtype(self) -> np.dtype:
        return self.kind

    @functools.cached_property
    def _ends(self) -> Int[np.ndarray, " f"]:
        return np.cumsum([count for _, count in self.files])

    def read(self, numbers: Int[np.ndarray, " m"]) -> Real[np.ndarray, "m h w c"]:
        found = np.empty((len(numbers), *self.image), self.kind)
        of_file = np.searchsorted(self._ends, numbers, side="right")
        for file in np.unique(of_file):
            rows = np.flatnonzero(of_file == file)
            path, count = self.files[file]
            places = numbers[rows] - (self._ends[file] - count)
            data = self._from_npy(path, count, places) if self.file_format == "npy" else self._records(path, places)
            found[rows] = np.frombuffer(data, self.kind).reshape(-1, *self.image)
        return found

    def _from_npy(self, path: Path, count: int, places: Int[np.ndarray, " m"]) -> bytearray:
        size, first = math.prod(self.image) * self.kind.itemsize, len(_header((count, *self.image), self.kind))
        data = bytearray(len(places) * size)
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)  # of runs of neighbours, which are read at once
        ends, view = np.append(starts[1:], len(places)), memoryview(data)
        with _reading(path), path.open("rb", buffering=0) as file:
            for start, end, place in zip(starts.tolist(), ends.tolist(), places[starts].tolist(), strict=True):
                file.seek(first + place * size)
                if file.readinto(view[start * size : end * size]) != (end - start) * size:
                    raise DataError(f"{path}: ends too soon. {_VERIFY}")
        return data

    def _records(self, path: Path, places: Int[np.ndarray, " m"]) -> bytes:
        with _reading(path):
            records = _reader(path, path.stat().st_mtime_ns).read(places.tolist())
        size = math.prod(self.image) * self.kind.itemsize
        if any(len(record) != size for record in records):
            raise DataError(f"{path}: holds an image of another size. {_VERIFY}")
        return b"".join(records)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what a damaged or missing file raises into a DataError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {_VERIFY}") from error


@functools.lru_cache(maxsize=_OPEN_AT_ONCE)
def _reader(path: Path, changed: int) -> "ArrayRecordReader":
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
