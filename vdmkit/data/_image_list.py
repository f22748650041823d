# SPDX-License-Identifier: Apache-2.0
"""Images that a user names: files, folders of them, or one array."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import UInt8

from vdmkit.data._image_file import SUFFIXES, read_image
from vdmkit.errors import DataError
from vdmkit.io import not_a_file

_EXPECTED = f"Expected a folder, a file that ends in {', '.join(SUFFIXES)}, or one .npy and nothing else."


@dataclass(frozen=True)
class ImageList:
    """Images of one shape, read on demand.

    Args:
        shape: (h, w, c) of every image.
        names: Names of the files; None for an array.
        paths: The files.
        passed_over: Number of files that are not images, and of links to folders, that were skipped.
        array: The images, if they are given as an array.
    """

    shape: tuple[int, int, int]
    names: list[str] | None
    paths: list[Path]
    array: UInt8[np.ndarray, "n h w c"] | None = None
    passed_over: int = 0

    def __len__(self) -> int:
        return len(self.paths) if self.array is None else len(self.array)

    @property
    def bytes(self) -> int:
        """Returns the size of the files, or of the array."""
        return sum(path.stat().st_size for path in self.paths) if self.array is None else self.array.nbytes

    def read(self, start: int, stop: int) -> UInt8[np.ndarray, "n h w c"]:
        """Returns images start, ..., stop - 1. Raises DataError if a file is not an image of this shape."""
        if self.array is not None:
            return np.asarray(self.array[start:stop])
        images = [read_image(path, self.shape) for path in self.paths[start:stop]]
        return np.asarray(images, np.uint8).reshape(-1, *self.shape)


def list_images(given: Sequence[Path], shape: tuple[int, int, int]) -> ImageList:
    """Lists the images at the paths: one .npy of uint8 (n, h, w, c), or files and folders, which are sorted by name.

    Raises:
        DataError: a path is something else, an array has another shape, or two files have the same name.
        OSError: a folder cannot be read.
    """
    if len(given) == 1 and given[0].suffix == ".npy":
        return ImageList(shape, None, [], _array(given[0], shape))
    paths, names, passed_over = [], [], 0
    for path in given:
        found, others = _files(path)
        passed_over += others
        paths += found
        names += [os.path.relpath(file, path if path.is_dir() else path.parent) for file in found]
    doubled = [name for name, count in Counter(str(Path(name).with_suffix("")) for name in names).items() if count > 1]
    if doubled:
        raise DataError(f"{doubled[0]}: two images of this name. Compress them into two files.")
    return ImageList(shape, names, paths, passed_over=passed_over)


def _files(path: Path) -> tuple[list[Path], int]:
    """Returns the image files, and the number of other files."""
    if path.is_dir():
        found = sorted(_in_folder(path))
    elif reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. {_EXPECTED}")
    elif path.suffix.lower() in SUFFIXES:
        return [path], 0
    else:
        raise DataError(f"{path}: not a file of an image. {_EXPECTED}")
    images = [file for file in found if file.suffix.lower() in SUFFIXES and not file.is_dir()]
    return images, len(found) - len(images)


def _in_folder(path: Path) -> Iterator[Path]:
    """Yields files, and links to folders, which are not followed because they may form a cycle."""
    for parent, folders, files in os.walk(path, onerror=_unreadable):
        yield from (Path(parent) / file for file in files)
        yield from (link for folder in folders if (link := Path(parent) / folder).is_symlink())


def _unreadable(error: OSError) -> NoReturn:
    raise error  # by default `os.walk` skips a folder that it cannot read


def _array(path: Path, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "n h w c"]:
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. {_EXPECTED}")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # of many types for a damaged header
        raise DataError(f"{path}: cannot be read as an array ({error}). Save it again with numpy.save.") from error
    if array.dtype != np.uint8 or array.shape[1:] != shape or array.ndim != 4:
        expected = ", ".join(map(str, shape))
        raise DataError(f"{path}: {array.dtype} {array.shape}; expected uint8 (n, {expected}), as the model's images.")
    return array
