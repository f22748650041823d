# SPDX-License-Identifier: Apache-2.0
"""What is recorded beside packed images, so that a start need not read the training images."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, Len

from vdmkit.data._shards import Format, Shards
from vdmkit.data._source import Identity, Split
from vdmkit.errors import DataError
from vdmkit.io import file_sha256, not_a_file, not_a_folder, read_json, seal_of, write_json

NAME = "data.json"
SPLITS: tuple[Split, ...] = ("train", "test")
_Size = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class StoredFile:
    """A file of a packed data set, with the number of images that it is about."""

    name: str
    images: _Size
    bytes: _Size
    sha256: str

    def problem(self, folder: Path, *, whole: bool) -> str | None:
        """Says what is wrong with the file: its presence and size, or also its contents, if the `whole` is read."""
        path = folder / self.name
        if reason := not_a_file(path):
            return f"{path}: {reason}"
        if (size := path.stat().st_size) != self.bytes:
            return f"{path}: {size:,} bytes, expected {self.bytes:,}"
        if whole and file_sha256(path) != self.sha256:
            return f"{path}: its contents are not those that were written"
        return None


def stored(path: Path, images: int) -> StoredFile:
    """Returns the record of a file that was written."""
    return StoredFile(path.name, images, path.stat().st_size, file_sha256(path))


@dataclass(frozen=True)
class PackedSplit:
    """The identity and the files of one split."""

    identity: Identity
    shards: Annotated[tuple[StoredFile, ...], Len(1)]
    prints: StoredFile
    labels: StoredFile | None

    @property
    def files(self) -> list[StoredFile]:
        return [*self.shards, self.prints, *([self.labels] if self.labels else [])]


@dataclass(frozen=True)
class Sidecar:
    """The facts of a packed data set."""

    version: Literal[1]
    format: Format
    shape: tuple[_Size, _Size, _Size]
    levels: Annotated[int, Ge(0), Le(256)]
    classes: Annotated[int, Ge(0)]
    train: PackedSplit
    test: PackedSplit

    def of(self, split: Split) -> PackedSplit:
        return self.train if split == "train" else self.test

    @property
    def files(self) -> list[StoredFile]:
        return [*self.train.files, *self.test.files]

    def pixels(self, folder: Path, split: Split) -> Shards:
        return shards(folder, self.of(split).shards, self.format, self.shape, self.levels)


def shards(
    folder: Path, files: tuple[StoredFile, ...], file_format: Format, shape: tuple[int, int, int], levels: int
) -> Shards:
    """Returns what reads the images of these files."""
    kind = np.dtype(np.uint8 if levels else np.float32)
    return Shards(tuple((folder / file.name, file.images) for file in files), file_format, shape, kind)


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Writes the facts with a checksum of them."""
    facts = asdict(sidecar)
    write_json(folder / NAME, {**facts, "sha256": seal_of(facts)})


def read_sidecar(folder: Path) -> Sidecar:
    """Reads the facts. Raises DataError if they are missing or damaged."""
    path = folder / NAME
    if reason := not_a_folder(folder) or not_a_file(path):
        what = "Set data.path to a folder that `vdmkit data pack` made; if it was interrupted, run it again."
        raise DataError(f"{path}: {reason}. {what}")
    try:
        facts = read_json(path, dict[str, Any])
        checksum = facts.pop("sha256", None)
        found = read_json(path, Sidecar)
        if checksum != seal_of(facts) or not all(_agrees(found.of(split), split) for split in SPLITS):
            raise ValueError("the facts are not those that were written")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}). Pack the images again.") from error
    return found


def _agrees(split: PackedSplit, name: Split) -> bool:
    here = all(file.name == Path(file.name).name for file in split.files)  # a name never leads out of the folder
    whole = sum(file.images for file in split.shards) == split.identity.count
    return here and whole and split.identity.split == name
