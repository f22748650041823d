# SPDX-License-Identifier: Apache-2.0
"""Images packed by `vdmkit data pack`: one .npy file per split, read on demand, so memory does not limit their number.

A folder holds `train.npy` and `test.npy`, the fingerprints and the labels of each split, and `data.json`, whose
metadata let a run start without reading the training images.
"""

import functools
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Int, Real
from numpy.lib.format import write_array_header_1_0

from vdmkit.data.identity import Fingerprints, may_be_fingerprints, scan
from vdmkit.data.sources import AbstractPixels, AbstractSource, Identity, Images, Pixels, Split, blocks, hash_and_range
from vdmkit.errors import DataError, words_of
from vdmkit.io import file_sha256, not_a_file, not_a_folder, read_json, seal_of, whole_folder, write_json
from vdmkit.progress import Advance, Progress, track
from vdmkit.registry import register

_METADATA = "data.json"
_SPLITS: tuple[Split, ...] = ("train", "test")
_ADVICE = "Put the file back, or pack the images again."
_CHANGED = "its contents are not those that were written"

_Size = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Metadata:
    """Metadata of packed images. `files` holds the SHA-256 of the fingerprints and labels, by file name."""

    shape: tuple[_Size, _Size, _Size]
    levels: Annotated[int, Ge(0), Le(256)]
    classes: Annotated[int, Ge(0)]
    train: Identity
    test: Identity
    files: dict[str, str]

    def of(self, split: Split) -> Identity:
        return self.train if split == "train" else self.test


@register("data", "packed")
class Packed(AbstractSource):
    """Images packed by `vdmkit data pack`, read from disk when they are needed.

    Loading checks the size of every file, and the SHA-256 of the test images, because results are computed on them;
    `vdmkit data verify` reads and checks everything.

    Args:
        path: The folder.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path).expanduser()

    @functools.cached_property
    def metadata(self) -> Metadata:
        return read_metadata(self.path)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.metadata.shape

    @property
    def levels(self) -> int:
        return self.metadata.levels

    @property
    def classes(self) -> int:
        return self.metadata.classes

    def locate(self) -> str:
        for split in _SPLITS:
            _stored(self.path, self.metadata, split)
        for name in self.metadata.files:
            _require(self.path / name)
        return ""

    def load(self, split: Split) -> Images:
        facts, pixels = self.metadata, _stored(self.path, self.metadata, split)
        if split == "test":
            _check(self.path, facts, split, lambda n=1, note=None: None)
        fingerprints = _small_array(self.path, facts, f"fingerprints-{split}.npy")
        if not may_be_fingerprints(fingerprints, len(pixels), int(np.prod(facts.shape))):
            raise DataError(f"{self.path / f'fingerprints-{split}.npy'}: not of these images. {_ADVICE}")
        labels = _small_array(self.path, facts, name) if (name := f"labels-{split}.npy") in facts.files else None
        return Images(pixels, facts.levels, facts.of(split), labels, fingerprints)


def pack(source: AbstractSource, folder: Path, *, progress: Progress = None) -> Metadata:
    """Packs both splits of a source into a new folder, for the source `packed`.

    The folder appears when everything is written; an interrupted call leaves nothing.

    Args:
        source: The source.
        folder: A new or empty folder.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress._track.Meter`.

    Raises:
        DataError: the source cannot be read, or changes while it is read; or the folder is not empty.
    """
    images = {split: source.load(split) for split in _SPLITS}
    files: dict[str, str] = {}
    try:
        with whole_folder(folder) as part:
            with track(progress, "packing", sum(len(one.pixels) for one in images.values())) as advance:
                for split, one in images.items():
                    arrays = {"fingerprints": _write_pixels(part / f"{split}.npy", one, advance), "labels": one.labels}
                    for kind, array in arrays.items():
                        if array is not None:
                            np.save(part / f"{kind}-{split}.npy", array)
                            files[f"{kind}-{split}.npy"] = file_sha256(part / f"{kind}-{split}.npy")
            identities = images["train"].identity, images["test"].identity
            metadata = Metadata(source.shape, source.levels, source.classes, *identities, files)
            facts = asdict(metadata)
            write_json(part / _METADATA, {**facts, "sha256": seal_of(facts)})
    except FileExistsError as error:
        raise DataError(f"{folder}: {error.strerror}. Choose another folder.") from error
    return metadata


def verify(folder: Path, *, progress: Progress = None) -> Metadata:
    """Reads all files of packed images, and returns their metadata. Raises DataError if any bit differs."""
    metadata = read_metadata(folder)
    with track(progress, "images", metadata.train.count + metadata.test.count) as advance:
        for split in _SPLITS:
            _check(folder, metadata, split, advance)
    for name in metadata.files:
        _small_array(folder, metadata, name)
    return metadata


def read_metadata(folder: Path) -> Metadata:
    """Reads the metadata. Raises DataError if they are missing or damaged."""
    path = folder / _METADATA
    if reason := not_a_folder(folder) or not_a_file(path):
        raise DataError(f"{path}: {reason}. Set data.path to a folder that `vdmkit data pack` made.")
    try:
        facts = read_json(path, dict[str, Any])
        checksum = facts.pop("sha256", None)
        found = read_json(path, Metadata)
        if checksum != seal_of(facts) or any(Path(name).name != name for name in found.files):
            raise ValueError("the facts are not those that were written")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}). Pack the images again.") from error
    return found


@dataclass(frozen=True, repr=False)
class _Stored(AbstractPixels):
    """Images of a .npy file, read without a memory map, whose pages would count as memory of the process."""

    path: Path
    start: int  # offset of the first image in bytes
    array_shape: tuple[int, int, int, int]
    array_dtype: np.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.array_shape

    @property
    def dtype(self) -> np.dtype:
        return self.array_dtype

    def read(self, numbers: Int[np.ndarray, " m"]) -> Real[np.ndarray, "m h w c"]:
        found = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        try:
            with self.path.open("rb", buffering=0) as file:
                for image, number in zip(found, numbers.tolist(), strict=True):
                    file.seek(self.start + number * image.nbytes)
                    if file.readinto(image.data.cast("B")) != image.nbytes:
                        raise OSError("it ends too soon")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error}). {_ADVICE}") from error
        return found


def _map(path: Path) -> np.memmap:
    """Maps a .npy file into memory. Raises DataError if it is missing, damaged, or has a different size."""
    _require(path)
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {_ADVICE}") from error
    if (size := os.path.getsize(path)) != (expected := array.offset + array.nbytes):
        raise DataError(f"{path}: {size:,} bytes, expected {expected:,}. {_ADVICE}")
    return array


def _stored(folder: Path, metadata: Metadata, split: Split) -> _Stored:
    """Returns the images of a split. Raises DataError if the file does not fit the metadata."""
    path = folder / f"{split}.npy"
    array, expected = _map(path), (metadata.of(split).count, *metadata.shape)
    if array.shape != expected or array.dtype != _dtype(metadata.levels):
        raise DataError(f"{path}: {array.dtype} of shape {array.shape}, not of these images. {_ADVICE}")
    return _Stored(path, array.offset, expected, array.dtype)


def _dtype(levels: int) -> np.dtype:
    return np.dtype("u1" if levels else "<f4")


def _require(path: Path) -> None:
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. {_ADVICE}")


def _check(folder: Path, metadata: Metadata, split: Split, advance: Advance) -> None:
    """Reads all images of a split. Raises DataError if they do not match its identity."""

    def read() -> Iterator[np.ndarray]:
        for block in blocks(_stored(folder, metadata, split)):
            yield block
            advance(len(block))

    identity = metadata.of(split)
    if hash_and_range(read()) != (identity.sha256, identity.low, identity.high):
        raise DataError(f"{folder / f'{split}.npy'}: {_CHANGED}. {_ADVICE}")


def _small_array(folder: Path, metadata: Metadata, name: str) -> np.ndarray:
    """Reads a file with a few bytes per image, and checks its SHA-256."""
    _require(folder / name)
    if file_sha256(folder / name) != metadata.files.get(name):
        raise DataError(f"{folder / name}: {_CHANGED}. {_ADVICE}")
    return np.load(folder / name)


def _write_pixels(path: Path, images: Images, advance: Advance) -> Fingerprints:
    """Writes the images of a split, and returns their fingerprints. Raises DataError if they have changed."""
    shape, identity = images.pixels.shape, images.identity
    header = {"descr": _dtype(images.levels).str, "fortran_order": False, "shape": shape}

    with path.open("wb") as file:  # no memory map, because a full disk would then kill the process
        write_array_header_1_0(file, header)

        def written() -> Iterator[np.ndarray]:
            for block in _source_blocks(images.pixels):
                file.write(np.ascontiguousarray(block).data)
                yield block

        found = scan(written(), images.levels, advance)
    if (found.sha256, found.low, found.high) != (identity.sha256, identity.low, identity.high):
        raise DataError(
            f"{path.stem} images: not those of {identity}. The source changes between two reads, or a disk is faulty: "
            "pack the images again."
        )
    return found.fingerprints


def _source_blocks(pixels: Pixels) -> Iterator[np.ndarray]:
    """Yields all images. Attributes an OSError to the source; otherwise it would name the file being written."""
    done = 0
    try:
        for block in blocks(pixels):
            yield block
            done += len(block)
    except OSError as error:
        raise DataError(f"images from number {done} on cannot be read. {words_of(error)}") from error
