# SPDX-License-Identifier: Apache-2.0
"""Folders of image files of one size, decoded once into a cache."""

import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import UInt8
from numpy.lib.format import write_array_header_1_0

from vdmkit.data._cache import cached_file
from vdmkit.data._image_file import SUFFIXES, read_image
from vdmkit.data._source import AbstractSource, Images, Split, identified
from vdmkit.errors import DataError
from vdmkit.io import cache_folder, is_own_file, not_a_file, not_a_folder
from vdmkit.registry import register

Side = Annotated[int, Ge(1), Le(16_384)]
Channels = Annotated[int, Ge(1), Le(3)]


@register("data", "folder")
class Folder(AbstractSource):
    """A folder of PNG, JPEG or WebP images of one size for each split, in the order of their names.

    Files in sub-folders are included, sorted by their path in the folder; files of other types are skipped.
    Images are decoded once, into a file in the cache folder that is then memory-mapped.

    Args:
        train: Folder of training images.
        test: Folder of test images.
        shape: (height, width, channels), channels 3 (8-bit RGB) or 1 (8-bit grey). By default the shape of the first
            image of `train`; with it, a recipe can be checked without the data.
    """

    def __init__(self, *, train: str, test: str, shape: tuple[Side, Side, Channels] | None = None) -> None:
        if shape is not None and (min(shape) < 1 or shape[2] not in (1, 3)):
            raise DataError(f"data.shape = {list(shape)}: expected [height, width, channels], channels 1 or 3.")
        self.folders: dict[Split, Path] = {"train": Path(train).expanduser(), "test": Path(test).expanduser()}
        self._shape = shape

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape or self._shape_of_first

    @property
    def levels(self) -> int:
        return 256

    def locate(self) -> str:
        for folder in self.folders.values():
            for name in _names(folder):
                _check_file(folder / name)
        return ""

    def load(self, split: Split) -> Images:
        folder, shape = self.folders[split], self.shape
        names = _names(folder)
        cached = cache_folder() / f"images-{_fingerprint(folder, names, shape)}.npy"
        if not is_own_file(cached):
            _decode(folder, names, shape, cached)
        return identified(_mapped(cached), self.levels, name=_name(folder, split), split=split)

    @functools.cached_property
    def _shape_of_first(self) -> tuple[int, int, int]:
        folder = self.folders["train"]
        return read_image(folder / _names(folder)[0]).shape


def _name(folder: Path, split: Split) -> str:
    """Returns a name for the images: the folder's, or its parent's if the folder is named after the split."""
    around = folder.absolute().parent.name
    if folder.name not in ("train", "test") or not around:
        return folder.name
    return around if folder.name == split else f"{around}[{folder.name}]"


def _names(folder: Path) -> list[str]:
    """Returns the paths of all image files relative to `folder`, sorted. Raises DataError if there are none."""
    if reason := not_a_folder(folder):
        raise DataError(f"{folder}: {reason}. Set data.train and data.test to folders of images.")
    names = sorted(os.path.relpath(file, folder) for file in _files(folder) if file.lower().endswith(SUFFIXES))
    if not names:
        raise DataError(f"{folder}: no images in it, expected files ending in {', '.join(SUFFIXES)}.")
    return names


def _files(folder: Path) -> Iterator[str]:
    """Yields all files in a folder and its sub-folders, following links; a folder reached twice is refused."""
    seen: dict[tuple[int, int], str] = {}
    for parent, _, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        stat = os.stat(parent)
        first = seen.setdefault((stat.st_dev, stat.st_ino), parent)
        if first != parent:
            raise DataError(
                f"{parent}: the same folder as {first}, by a link: each of its images would count twice. "
                "Remove the link."
            )
        yield from (os.path.join(parent, file) for file in files)


def _unreadable(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}). Its images would be missing.") from error


def _fingerprint(folder: Path, names: list[str], shape: tuple[int, int, int]) -> str:
    """Returns a key for the decoded images, which depends on every file's path, size and times.

    The contents are not read: that would take minutes for a million small files, and the sizes take seconds.
    """
    digest = hashlib.sha256(f"{folder.resolve()}\0{shape}".encode(errors="surrogateescape"))
    for name in names:
        _check_file(folder / name)
        stat = (folder / name).stat()
        facts = f"\0{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
        digest.update(facts.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _check_file(path: Path) -> None:
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. Replace or remove it.")


def _decode(folder: Path, names: list[str], shape: tuple[int, int, int], path: Path) -> None:
    """Writes all images as one .npy file, without a memory map, because a full disk would then kill the process."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    with cached_file(path) as part, part.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), *shape)}
        write_array_header_1_0(file, header)
        for name in track(names, f"decoding {folder}", console=console, transient=True):
            file.write(read_image(folder / name, shape).tobytes())


def _mapped(path: Path) -> UInt8[np.ndarray, "n h w c"]:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cached images are damaged ({error}). Delete this file and run again.") from error
