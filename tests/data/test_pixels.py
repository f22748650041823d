# SPDX-License-Identifier: Apache-2.0
"""Images on disk, indexed like an array."""

from dataclasses import dataclass

import numpy as np
import pytest

from vdmkit.data import AbstractPixels
from vdmkit.data.sources import blocks, hash_and_range, pixel_sha256, select
from vdmkit.errors import DataError

ARRAY = np.random.default_rng(0).integers(0, 256, (11, 2, 3, 1)).astype(np.uint8)


@dataclass(frozen=True)
class _OfArray(AbstractPixels):
    """Reads from an array."""

    array: np.ndarray

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return self.array.dtype

    def read(self, numbers):
        return self.array[numbers]


PIXELS = _OfArray(ARRAY)
KEYS = {
    "number": 3,
    "numpy number": np.int32(4),
    "from the end": -1,
    "slice": slice(2, 7),
    "steps": slice(None, None, 3),
    "all": slice(None),
    "backwards": slice(None, None, -2),
    "none": slice(4, 4),
    "array": np.array([5, 0, -2, 5]),
    "list": [1, 10],
    "empty list": [],
    "mask": ARRAY[:, 0, 0, 0] > 100,
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_indexing_is_that_of_an_array(key):
    """Images on disk are indexed like an array."""
    np.testing.assert_array_equal(PIXELS[key], ARRAY[key])


def test_length_iteration_and_selection_are_those_of_an_array():
    """Length, iteration and selection are those of an array."""
    index = np.array([7, 2, 9, 2])
    chosen = select(PIXELS, index)
    assert (len(PIXELS), PIXELS.ndim, len(chosen), chosen.shape, chosen.dtype) == (11, 4, 4, (4, 2, 3, 1), np.uint8)
    np.testing.assert_array_equal(list(PIXELS), ARRAY)
    np.testing.assert_array_equal(chosen[1:], ARRAY[index][1:])
    np.testing.assert_array_equal(select(ARRAY, index), ARRAY[index])


@pytest.mark.parametrize("key", [11, -12, [0, 11], np.zeros(3, bool), np.array([0.5]), np.zeros((2, 2), int)])
def test_what_is_no_index_is_refused(key):
    """Indices that numpy would refuse raise IndexError."""
    with pytest.raises(IndexError):
        PIXELS[key]


@pytest.mark.parametrize("read", [np.asarray, np.mean, lambda pixels: np.zeros(2) + pixels])
def test_reading_all_of_them_unasked_is_refused(read):
    """Implicit conversion to an array raises DataError."""
    with pytest.raises(DataError, match=r"11 images that are not in memory. Read some of them by \[:100\]"):
        read(PIXELS)


@pytest.mark.parametrize("values", [1, 13, 1 << 22])
def test_blocks_are_all_images_in_order(values, monkeypatch):
    """The identity does not depend on the size of the blocks."""
    monkeypatch.setattr("vdmkit.data.sources._BLOCK_VALUES", values)
    np.testing.assert_array_equal(np.concatenate(list(blocks(PIXELS))), ARRAY)
    assert hash_and_range(blocks(PIXELS)) == (pixel_sha256(ARRAY), ARRAY.min(), ARRAY.max())


def test_a_value_that_is_not_finite_is_not_lost_between_blocks(monkeypatch):
    """A NaN in any block makes the range NaN."""
    monkeypatch.setattr("vdmkit.data.sources._BLOCK_VALUES", 1)
    for place in range(3):
        array = np.zeros((3, 1, 1, 1), np.float32)
        array[place] = np.nan
        assert np.isnan(hash_and_range(blocks(array))[1:]).all()
