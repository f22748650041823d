# SPDX-License-Identifier: Apache-2.0
"""A plugin that says when it is about to do something, by the audit event "troubled", so that a hook can break it.

Its data are those of a .npz file, read image by image as from a disk; its network is that of system/tiny.py.
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

import vdmkit
from vdmkit.data import AbstractPixels, AbstractSource, Images, Npz, Split, identified
from vdmkit.networks import AbstractNetwork


class Pixels(AbstractPixels):
    """Images of an array, one event for each time that some are read."""

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


@vdmkit.register("network", "troubled")
class TroubledNetwork(AbstractNetwork):
    """Two dense layers on the whole image, with dropout; an event when it is made and when it is traced."""

    kernel: Array
    bias: Array
    out: Array
    outputs: int = eqx.field(static=True)

    def __init__(self, shape, outputs, gamma_range, key):
        sys.audit("troubled")
        height, width, channels = shape
        pixels = height * width * channels
        self.kernel = jax.random.normal(key, (pixels + 1, 8)) / 8
        self.bias = jnp.zeros(8)
        self.out = jnp.zeros((8, pixels * outputs))
        self.outputs = outputs

    def __call__(self, z, gamma, condition, *, key=None):
        sys.audit("troubled")
        hidden = jax.nn.silu(jnp.append(z, gamma) @ self.kernel + self.bias)
        kept = 1.0 if key is None else jax.random.bernoulli(key, 0.9, hidden.shape)
        return (kept * hidden @ self.out).reshape(*z.shape, self.outputs)
