# SPDX-License-Identifier: Apache-2.0
"""Counts of levels over a split."""

import numpy as np
from jaxtyping import Int32

from vdmkit.data._pixels import blocks
from vdmkit.data._source import Images


def level_counts(images: Images) -> Int32[np.ndarray, "h w c V"]:
    """Returns how often each level occurs at each pixel and channel; the sum over levels is the number of images."""
    shape, levels = images.pixels.shape[1:], images.levels
    size = int(np.prod(shape))
    counts = np.zeros(size * levels, np.int64)
    first_bin = np.arange(size) * levels
    for block in blocks(images.pixels):
        counts += np.bincount((first_bin + block.reshape(-1, size)).ravel(), minlength=size * levels)
    return counts.reshape(*shape, levels).astype(np.int32)
