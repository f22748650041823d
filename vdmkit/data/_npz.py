# SPDX-License-Identifier: Apache-2.0
"""Images in a numpy .npz file, one uint8 array per split."""

import functools
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Int, UInt8

from vdmkit.data._source import AbstractSource, Images, Split, identified
from vdmkit.errors import DataError
from vdmkit.io import check_claims, not_a_file
from vdmkit.registry import register

Levels = Annotated[int, Ge(2), Le(256)]
Classes = Annotated[int, Ge(0), Le(1_000_000)]


@register("data", "npz")
class Npz(AbstractSource):
    """Images of a numpy .npz file: uint8 arrays of shape (n, h, w, c), or (n, h, w) for grey.

    Args:
        path: The file.
        train: Name of the array of training images.
        test: Name of the array of test images.
        levels: Number of values a pixel can take: 0..levels-1.
        classes: Number of labels, 0..classes-1, which integer arrays of shape (n,) then hold, named after those of the
            images: `train_labels`, `test_labels`. With 0 the images have no labels.
    """

    def __init__(
        self, *, path: str, train: str = "train", test: str = "test", levels: Levels = 256, classes: Classes = 0
    ) -> None:
        self.path = Path(path).expanduser()
        self.arrays: dict[Split, str] = {"train": train, "test": test}
        self._levels, self._classes = levels, classes

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape

    @property
    def levels(self) -> int:
        return self._levels

    @property
    def classes(self) -> int:
        return self._classes

    def locate(self) -> str:
        for name in self.arrays.values():
            _array(self.path, name)
        return ""

    def load(self, split: Split) -> Images:
        pixels = _read(self.path, self.arrays[split])
        if pixels.shape[1:] != self.shape:
            raise DataError(
                f"{self.path}: array {self.arrays[split]!r} has images of shape {pixels.shape[1:]}, "
                f"expected {self.shape} as in {self.arrays['train']!r}. Bring both splits to one shape."
            )
        array = self.arrays[split]
        name = self.path.stem if array == split else f"{self.path.stem}[{array}]"
        labels = _labels(self.path, f"{array}_labels", self._classes) if self._classes else None
        return identified(pixels, self._levels, name=name, split=split, labels=labels)

    @functools.cached_property
    def _shape(self) -> tuple[int, int, int]:
        return _read(self.path, self.arrays["train"]).shape[1:]


def _read(path: Path, name: str) -> UInt8[np.ndarray, "n h w c"]:
    array = _array(path, name)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise DataError(
            f"{path}: array {name!r} is {array.dtype} of shape {array.shape}, "
            "expected uint8 (n, h, w, c) or (n, h, w). Convert it and save it again."
        )
    if not array.size:
        raise DataError(f"{path}: array {name!r} of shape {array.shape} has no images. Give at least one.")
    return array if array.ndim == 4 else array[..., None]


def _labels(path: Path, name: str, classes: int) -> Int[np.ndarray, " n"]:
    array = _array(path, name)
    if array.dtype.kind not in "iu" or array.ndim != 1 or (array < 0).any() or (array >= classes).any():
        raise DataError(
            f"{path}: array {name!r} is {array.dtype} of shape {array.shape}, expected integers 0..{classes - 1} of "
            "shape (n,). Correct it or data.classes, which is 0 for images without labels."
        )
    return array.astype(np.int64)


def _array(path: Path, name: str) -> np.ndarray:
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. Set data.path to a numpy .npz file.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a .npz file, or a truncated one. Save it again with numpy.savez.")
    try:
        check_claims(path, name)
        # allow_pickle=False: an object array would be a pickle, which can run anything
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            if name in names:
                return file[name]
    except Exception as error:  # a damaged zip file raises errors of zipfile, zlib, numpy, ...
        raise DataError(
            f"{path}: array {name!r} cannot be read ({error}). Save it again with numpy.savez, as plain uint8."
        ) from error
    found = ", ".join(names) or "none"
    raise DataError(f"{path}: holds no array {name!r} (arrays in it: {found}). Correct the name or the file.")
