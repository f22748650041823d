# SPDX-License-Identifier: Apache-2.0
"""The interface of a data source: images in named splits, with an identity."""

import abc
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, Shaped

from vdmkit.data._pixels import Pixels, blocks
from vdmkit.errors import DataError
from vdmkit.registry import define_kind
from vdmkit.toy_data import AbstractDistribution

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Identity:
    """The identity of the data that a number was computed on. `published` names a known data set, or is None.

    `low` and `high` are the smallest and the largest value, in levels or in units of continuous data.
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
    """The identities of training and test images."""

    train: Identity
    test: Identity


@dataclass(frozen=True, repr=False)
class Images:
    """One split in its canonical order: uint8 levels 0..levels-1, or float32 for continuous data (levels = 0).

    `pixels` is an array, or reads images from disk when it is indexed. `labels` holds each image's class,
    0..classes-1, and `prints` what `prints_of` returns, if it was computed before.
    """

    pixels: Pixels
    levels: int
    identity: Identity
    labels: Int[np.ndarray, " n"] | None = None
    prints: Shaped[np.ndarray, " n"] | None = None

    def __repr__(self) -> str:
        return f"Images({self.identity}, {self.levels or 'no'} levels)"


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
        raise DataError(f"{where}: {len(labels):,} labels of {len(pixels):,} images. Fetch the data anew.")
    return Images(pixels, levels, Identity(name, split, len(pixels), sha256, low, high, published), labels)


def hash_and_range(parts: Iterable[np.ndarray]) -> tuple[str, float, float]:
    """Returns the SHA-256 of all bytes of pixels in C order, in hexadecimal, and their least and largest value.

    The values are NaN if one is.
    """
    digest, low, high = hashlib.sha256(), np.inf, -np.inf
    for block in parts:
        digest.update(np.ascontiguousarray(block).data)
        low, high = np.minimum(low, block.min()), np.maximum(high, block.max())
    return digest.hexdigest(), float(low), float(high)


def pixel_sha256(pixels: Pixels) -> str:
    """Returns the SHA-256 of the bytes of all pixels in C order, in hexadecimal."""
    return hash_and_range(blocks(pixels))[0]


class AbstractSource(abc.ABC):
    """A source of images. Its constructor reads nothing, so that a recipe can be checked without data.

    An implementer supplies `shape`, `levels` and `load`; `load` returns `identified(...)`, so that every number
    computed on the images can name them. A split always loads with the same pixels in the same order.
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
        """Reads one split. Raises DataError if the data is missing, damaged or not what was asked for."""


define_kind("data", "images in a train and a test split", AbstractSource)
