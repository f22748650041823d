# SPDX-License-Identifier: Apache-2.0
"""Passes over a split in which every image counts once: for evaluation, and for counting levels."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from vdmkit.data._source import Images
from vdmkit.errors import DataError

_CHUNK = 1024


def padded_batches(images: Images, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Every image once, in order, in batches of one size: a dropped tail would bias the mean.

    Yields {"image": uint8 (b, h, w, c), "index": int32 (b,), "mask": float32 (b,)}. The last batch is filled up
    with its last image, and there the mask is 0: weigh sums by it.
    """
    if batch_size < 1:
        raise DataError(f"evaluation batch size {batch_size}: expected at least 1.")
    count = len(images.pixels)
    for start in range(0, count, batch_size):
        positions = np.arange(start, start + batch_size)
        index = np.minimum(positions, count - 1).astype(np.int32)
        yield {"image": images.pixels[index], "index": index, "mask": (positions < count).astype(np.float32)}


def level_counts(images: Images) -> Int32[np.ndarray, "h w c V"]:
    """How often each level occurs at each pixel and channel; the sum over levels is the number of images."""
    shape, levels = images.pixels.shape[1:], images.levels
    size = int(np.prod(shape))
    counts = np.zeros(size * levels, np.int64)
    first_bin = np.arange(size) * levels
    for start in range(0, len(images.pixels), _CHUNK):  # a memory-mapped split need not fit in memory
        chunk = images.pixels[start : start + _CHUNK].reshape(-1, size)
        counts += np.bincount((first_bin + chunk).ravel(), minlength=size * levels)
    return counts.reshape(*shape, levels).astype(np.int32)
