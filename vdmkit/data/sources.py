# SPDX-License-Identifier: Apache-2.0
"""Sources of images: the interface that every source implements, one split of images, and its identity.

Pixels need not fit in memory: they are an array, or an `AbstractPixels` that reads from disk when it is indexed.
"""

import abc
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
from jaxtyping import Int, Real, Shaped

from vdmkit.errors import DataError
from vdmkit.registry import define_kind
from vdmkit.toy_data import AbstractDistribution

_BLOCK_VALUES = 1 << 22  # values in memory at once

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Identity:
    """Identity of one split, reported with every number computed on it.

    `low` and `high` are the smallest and the largest value, in levels or in units of continuous data. `published` is
    the name of a known data set, or None.
    """

    name: str
    split: str
    count: int
    sha256: str
    low: float
    high: float
    published: str | None

    def __str__(self) -> str:
        known = self.published or "not the published data set"
        return f"{self.name}/{self.split}, {self.count:,} images, {known}, sha256 {self.sha256[:12]}"


@dataclass(frozen=True)
class Identities:
    """Identities of the training and test images."""

    train: Identity
    test: Identity


class AbstractPixels(abc.ABC):
    """Images on disk, indexed like an array (n, h, w, c): every access reads, and returns an array.

    A subclass defines `shape`, `dtype` and `read`. Operations that would read all images implicitly, such as
    `numpy.asarray`, raise DataError.
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


@dataclass(frozen=True, repr=False)
class Images:
    """One split in its canonical order: uint8 levels 0..levels-1, or float32 for continuous data (levels = 0).

    `labels` holds each image's class, 0..classes-1, and `fingerprints` the result of `fingerprints_of` if it was
    computed before.
    """

    pixels: Pixels
    levels: int
    identity: Identity
    labels: Int[np.ndarray, " n"] | None = None
    fingerprints: Shaped[np.ndarray, " n"] | None = None

    def __repr__(self) -> str:
        return f"Images({self.identity}, {self.levels or 'no'} levels)"


class AbstractSource(abc.ABC):
    """A source of images. Its constructor reads nothing, so a recipe can be checked without data.

    A subclass defines `shape`, `levels` and `load`; `load` returns `identified(...)`, so that every number computed on
    the images names them. A split always loads with the same pixels in the same order.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Returns (h, w, c) of every image. It may read data if the recipe does not give the shape."""

    @property
    @abc.abstractmethod
    def levels(self) -> int:
        """Returns the number of values a pixel can take, at most 256; 0 for continuous data."""

    @property
    def classes(self) -> int:
        """Returns the number of labels; 0 for images without labels."""
        return 0

    @property
    def distribution(self) -> AbstractDistribution | None:
        """Returns the distribution that the images are drawn from, or None if it is unknown."""
        return None

    @property
    def labels_are_components(self) -> bool:
        """Returns whether label k is component k of the distribution, so that P(image | label) is known."""
        return False

    def locate(self) -> str:
        """Checks that the files of `load` exist, without reading an image. Raises DataError if one is missing.

        Returns what `load` downloads first, such as "170 MB from URL", or "".
        """
        return ""

    @abc.abstractmethod
    def load(self, split: Split) -> Images:
        """Reads one split. Raises DataError if the data is missing, damaged or not as expected."""


define_kind("data", "images in a train and a test split", AbstractSource)


def identified(
    pixels: Pixels,
    levels: int,
    *,
    name: str,
    split: Split,
    published: str | None = None,
    labels: Int[np.ndarray, " m"] | None = None,
) -> Images:
    """Returns one split with its identity. Raises DataError if it is empty or has a value outside of the levels."""
    where = f"data {name}/{split}"
    if 0 in pixels.shape:
        raise DataError(f"{where}: no images. Give a source that holds at least one.")
    if pixels.dtype != (np.uint8 if levels else np.float32):
        raise DataError(f"{where}: {pixels.dtype} with {levels} levels. Levels are uint8, continuous data float32.")
    sha256, low, high = hash_and_range(blocks(pixels))
    if not np.isfinite([low, high]).all():
        raise DataError(f"{where}: a value is not finite. Correct the data.")
    if levels and high >= levels:
        raise DataError(f"{where}: a pixel is {high:g}, expected 0..{levels - 1}. Correct the data or data.levels.")
    if labels is not None and len(labels) != len(pixels):
        raise DataError(f"{where}: {len(labels):,} labels of {len(pixels):,} images. Fetch the data again.")
    return Images(pixels, levels, Identity(name, split, len(pixels), sha256, low, high, published), labels)


def hash_and_range(parts: Iterable[np.ndarray]) -> tuple[str, float, float]:
    """Returns the SHA-256 of all bytes of pixels in C order, in hexadecimal, and their smallest and largest value.

    The values are NaN if any value is.
    """
    digest, low, high = hashlib.sha256(), np.inf, -np.inf
    for block in parts:
        digest.update(np.ascontiguousarray(block).data)
        low, high = np.minimum(low, block.min()), np.maximum(high, block.max())
    return digest.hexdigest(), float(low), float(high)


def pixel_sha256(pixels: Pixels) -> str:
    """Returns the SHA-256 of the bytes of all pixels in C order, in hexadecimal."""
    return hash_and_range(blocks(pixels))[0]


def blocks(pixels: Pixels) -> Iterator[Real[np.ndarray, "m h w c"]]:
    """Yields all images in order, a few million values at once."""
    rows = max(_BLOCK_VALUES // math.prod(pixels.shape[1:]), 1)
    for start in range(0, len(pixels), rows):
        yield pixels[start : start + rows]


def select(pixels: Pixels, index: Int[np.ndarray, " m"]) -> Real[np.ndarray | AbstractPixels, "m h w c"]:
    """Returns the images with these numbers, without reading those that are not in memory."""
    return pixels[index] if isinstance(pixels, np.ndarray) else _Selected(pixels, index)


@dataclass(frozen=True, repr=False)
class _Selected(AbstractPixels):
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
