# SPDX-License-Identifier: Apache-2.0
"""Images that need not fit in memory: an array, or what reads them from where they are stored."""

import abc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from jaxtyping import Int, Real

from vdmkit.errors import DataError

_VALUES = 1 << 22  # values that are in memory at once


class AbstractPixels(abc.ABC):
    """Images on disk, indexed like an array (n, h, w, c): every access reads, and returns an array.

    An implementer supplies `shape`, `dtype` and `read`. What would read all images without being asked to, such as
    `numpy.asarray`, is refused.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """Returns (n, h, w, c)."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """Returns uint8 for levels, float32 for continuous data."""

    @abc.abstractmethod
    def read(self, numbers: Int[np.ndarray, " m"]) -> Real[np.ndarray, "m h w c"]:
        """Reads the images with these numbers, 0..n-1, in any order. Raises DataError if they are damaged."""

    @property
    def ndim(self) -> int:
        return 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | np.integer | slice | Sequence[int] | np.ndarray) -> Real[np.ndarray, "..."]:
        if isinstance(key, int | np.integer):
            return self.read(self._checked(np.array([key])))[0]
        if isinstance(key, slice):
            return self.read(np.arange(*key.indices(len(self))))
        index = np.asarray(key)
        if index.dtype == bool and index.shape != (len(self),):
            raise IndexError(f"a mask of shape {index.shape} for {len(self)} images")
        return self.read(np.flatnonzero(index) if index.dtype == bool else self._checked(index))

    def _checked(self, index: np.ndarray) -> Int[np.ndarray, " m"]:
        if index.ndim != 1 or not (np.issubdtype(index.dtype, np.integer) or not len(index)):
            raise IndexError(f"index of shape {index.shape} and type {index.dtype}, expected integers (m,)")
        if len(index) and not -len(self) <= index.min() <= index.max() < len(self):
            raise IndexError(f"index from {index.min()} to {index.max()}: there are images 0..{len(self) - 1}")
        return np.where(index < 0, index + len(self), index).astype(np.int64)

    def __iter__(self) -> Iterator[Real[np.ndarray, "h w c"]]:
        for block in blocks(self):
            yield from block

    def __array__(self, *args: object, **options: object) -> NoReturn:
        raise DataError(f"{len(self):,} images that are not in memory. Read some of them by [:100], or all by [:].")

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}(shape={self.shape}, dtype={self.dtype})"


Pixels = Real[np.ndarray | AbstractPixels, "n h w c"]


def blocks(pixels: Pixels) -> Iterator[Real[np.ndarray, "m h w c"]]:
    """Yields all images in order, a few million values at once."""
    rows = max(_VALUES // math.prod(pixels.shape[1:]), 1)
    for start in range(0, len(pixels), rows):
        yield pixels[start : start + rows]


def equal_batches(count: int, batch_size: int) -> Iterator[Int[np.ndarray, " b"]]:
    """Yields the numbers of `count` images in batches of one size, for one compilation; the last repeats some."""
    size = min(batch_size, count)
    for start in range(0, count, size):
        yield np.resize(np.arange(start, min(start + size, count)), size)


def select(pixels: Pixels, index: Int[np.ndarray, " m"]) -> Real[np.ndarray | AbstractPixels, "m h w c"]:
    """Returns the images with these numbers, without reading those that are not in memory."""
    return pixels[index] if isinstance(pixels, np.ndarray) else _Selected(pixels, index)


@dataclass(frozen=True, repr=False)
class _Selected(AbstractPixels):
    """Some of the images, in another order."""

    pixels: AbstractPixels
    index: Int[np.ndarray, " m"]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.index), *self.pixels.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.pixels.dtype

    def read(self, numbers: Int[np.ndarray, " m"]) -> Real[np.ndarray, "m h w c"]:
        return self.pixels.read(self.index[numbers])
