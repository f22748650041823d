# SPDX-License-Identifier: Apache-2.0
"""The training images nearest to samples, which show whether a model reproduces its training data."""

import numpy as np
import scipy
from jaxtyping import Float, Int, Real

from vdmkit.data.sources import Pixels, blocks


def nearest(
    samples: Real[np.ndarray, "m h w c"], images: Pixels
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Returns the index of the nearest image to each sample, and the root mean square difference of their values."""
    flat = samples.reshape(len(samples), -1).astype(np.float64)
    index, distance, first = np.zeros(len(flat), int), np.full(len(flat), np.inf), 0
    for block in blocks(images):
        found = scipy.spatial.distance.cdist(flat, block.reshape(len(block), -1).astype(np.float64))
        closer = found.min(1) < distance
        index = np.where(closer, first + found.argmin(1), index)
        distance = np.minimum(distance, found.min(1))
        first += len(block)
    return index, distance / np.sqrt(flat.shape[1])
