# SPDX-License-Identifier: Apache-2.0
"""The writing of a packed data set, shard by shard; what is finished is recorded, so that it can be continued."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from vdmkit.data._copies import Prints
from vdmkit.data._pixels import Pixels, blocks
from vdmkit.data._shards import Format, write_shard
from vdmkit.data._sidecar import PackedSplit, StoredFile, shards, stored
from vdmkit.data._source import Identity, Images, Split
from vdmkit.data._survey import survey
from vdmkit.errors import DataError, words_of
from vdmkit.io import locked_folder, not_a_folder, read_json, whole_file, write_json
from vdmkit.progress import Advance

_NAME = "packing.json"


@dataclass(frozen=True)
class Unfinished:
    """What is being packed, and the shards that are finished."""

    format: Format
    images_per_shard: int
    levels: int
    classes: int
    identities: dict[str, Identity]
    finished: dict[str, StoredFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Packing:
    """The writing of a packed data set."""

    folder: Path
    shape: tuple[int, int, int]
    begun: Unfinished

    def write(self, split: Split, pixels: Pixels, advance: Advance) -> tuple[StoredFile, ...]:
        """Writes the shards of a split, but for those that are finished, and records each."""
        found, step = [], self.begun.images_per_shard
        for number, start in enumerate(range(0, len(pixels), step)):
            count = min(step, len(pixels) - start)
            name = f"{split}-{number:05}.{self.begun.format}"
            file = self.begun.finished.get(name)
            if file is None or file.problem(self.folder, whole=True):
                parts = _counted(pixels, start, start + count, advance)
                write_shard(self.folder / name, self.begun.format, (count, *self.shape), parts)
                file = self._record(stored(self.folder / name, count))
            else:
                advance(count)
            found.append(file)
        return tuple(found)

    def _record(self, file: StoredFile) -> StoredFile:
        self.begun.finished[file.name] = file
        write_json(self.folder / _NAME, asdict(self.begun))
        return file

    def finish(self, images: Images, files: tuple[StoredFile, ...], advance: Advance) -> PackedSplit:
        """Reads what was written, and writes what is known of each image."""
        identity, levels = images.identity, self.begun.levels
        pixels = shards(self.folder, files, self.begun.format, self.shape, levels)
        found = check_identity(self.folder, pixels, identity, levels, advance)
        prints = self._array(f"prints-{identity.split}.npy", found)
        labels = images.labels
        kept = None if labels is None else self._array(f"labels-{identity.split}.npy", labels)
        return PackedSplit(identity, files, prints, kept)

    def _array(self, name: str, array: np.ndarray) -> StoredFile:
        with whole_file(self.folder / name) as part, part.open("wb") as file:
            np.save(file, array)
        return stored(self.folder / name, len(array))


def forget(folder: Path) -> None:
    """Deletes the record of finished shards, after the sidecar was written."""
    (folder / _NAME).unlink(missing_ok=True)


def _counted(pixels: Pixels, start: int, stop: int, advance: Advance) -> Iterator[np.ndarray]:
    """Yields images from start to stop in blocks, and reports each block as done when the next is asked for."""
    with _reading(start, stop):
        rows = len(next(blocks(pixels)))
    for first in range(start, stop, rows):
        with _reading(first, end := min(first + rows, stop)):
            block = pixels[first:end]
        yield block
        advance(len(block))


@contextmanager
def _reading(start: int, stop: int) -> Iterator[None]:
    """Makes an OSError one of the source: the file that is being written would be blamed."""
    try:
        yield
    except OSError as error:
        raise DataError(f"images {start} to {stop - 1} cannot be read. {words_of(error)}") from error


def check_identity(folder: Path, pixels: Pixels, identity: Identity, levels: int, advance: Advance) -> Prints:
    """Reads all images of a split, and returns their prints. Raises DataError if they have another identity."""
    found = survey(pixels, levels, advance)
    if (found.sha256, found.low, found.high) != (identity.sha256, identity.low, identity.high):
        raise DataError(
            f"{folder}: its {identity.split} images are not those of {identity}. The source changes between two reads, "
            "or a disk is faulty: pack the images again into another folder."
        )
    return found.prints


def continued(folder: Path, begun: Unfinished) -> Unfinished:
    """Returns what an interrupted call left in the folder, or what begins in an empty one.

    Raises:
        DataError: the folder holds something else.
    """
    path = folder / _NAME
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise DataError(f"{folder}: not empty, and not a packed data set. Choose another folder.")
        write_json(path, asdict(begun))
        return begun
    try:
        found = read_json(path, Unfinished)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}). Delete {folder}, and pack the images again.") from error
    if replace(found, finished={}) != begun:
        raise DataError(f"{folder}: begun with other images, format or size of files. Choose another folder.")
    for part in folder.glob(".*.part"):  # of a killed process
        part.unlink()
    return found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks the folder, which is made if it is missing; the system releases the lock however the process ends."""
    if folder.exists() and (reason := not_a_folder(folder)):
        raise DataError(f"{folder}: {reason}. Choose another folder.")
    busy = f"{folder}: another vdmkit is packing here. Wait for it, or choose another folder."
    with locked_folder(folder, DataError(busy)) as problem:
        if problem:
            raise DataError(f"{folder}: {problem}. Choose a folder on another one.")
        yield
