# SPDX-License-Identifier: Apache-2.0
"""Random numbers of the data pipeline, a pure function of seed, purpose and index."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """Purposes of random numbers; each has its own stream."""

    SHUFFLE = 0  # index = epoch
    AUGMENT = 1  # index = step


def generator(seed: int, purpose: Purpose, index: int) -> np.random.Generator:
    """Returns Philox keyed by (seed, index); the purpose is the counter's highest word, which drawing never reaches."""
    key = np.array([seed % 2**64, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], np.uint64)))
