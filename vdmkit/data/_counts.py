# SPDX-License-Identifier: Apache-2.0
"""Counts of levels over a split."""

import numpy as np
from jaxtyping import Int32

from vdmkit.data._source import Images

_CHUNK = 1024


def level_counts(images: Images) -> Int32[np.ndarray, "h w c V"]:
    """Returns how often each level occurs at each pixel and channel; the sum over levels is the number of images."""
    shape, levels = images.pixels.shape[1:], images.levels
    size = int(np.prod(shape))
    counts = np.zeros(size * levels, np.int64)
    first_bin = np.arange(size) * levels
    for start in range(0, len(images.pixels), _CHUNK):  # a memory-mapped split need not fit in memory
        chunk = images.pixels[start : start + _CHUNK].reshape(-1, size)
        counts += np.bincount((first_bin + chunk).ravel(), minlength=size * levels)
    return counts.reshape(*shape, levels).astype(np.int32)
