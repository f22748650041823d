# SPDX-License-Identifier: Apache-2.0
"""A plugin that reads the data of a .npz file as if from a disk, and that the hook of forks.py can break.

It raises the audit event "troubled" before every operation, and so does system/tiny.py.
"""

import sys

import numpy as np
from jaxtyping import Int, UInt8

import vdmkit
from vdmkit.data import AbstractPixels, AbstractSource, Images, Npz
from vdmkit.data.sources import Split, identified


class Pixels(AbstractPixels):
    """Images of an array, with one audit event per read."""

    def __init__(self, array: UInt8[np.ndarray, "n h w c"]):
        self.array = array

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self, numbers: Int[np.ndarray, " m"]) -> UInt8[np.ndarray, "m h w c"]:
        sys.audit("troubled")
        return self.array[numbers]


@vdmkit.register("data", "troubled")
class Troubled(AbstractSource):
    """Images of a .npz file."""

    def __init__(self, *, path: str, levels: int):
        sys.audit("troubled")
        self._file = Npz(path=path, levels=levels)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._file.shape

    @property
    def levels(self) -> int:
        return self._file.levels

    def locate(self) -> str:
        sys.audit("troubled")
        return self._file.locate()

    def load(self, split: Split) -> Images:
        sys.audit("troubled")
        pixels = self._file.load(split).pixels
        return identified(Pixels(np.asarray(pixels)), self.levels, name="troubled", split=split)
