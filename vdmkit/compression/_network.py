# SPDX-License-Identifier: Apache-2.0
"""Calls of the network for any number of images, in batches of two sizes, each compiled once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vdmkit.compression._gaussian_law import FINE
from vdmkit.compression._layers import Layers
from vdmkit.compression._predict import OFFSETS, gaussian_shift, level_weights, mixture_weights
from vdmkit.model import DiffusionModel

Precision = Literal["float64", "float32"]
_FEW = 8
_FUNCTIONS = {"gaussian": gaussian_shift, "mixture": mixture_weights, "levels": level_weights}


def in_precision(model: DiffusionModel, dtype: Precision) -> DiffusionModel:
    """The model with parameters of this type."""
    with jax.enable_x64(True):
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, model)


@eqx.filter_jit
def _call(
    kind: str, model: DiffusionModel, y: Array, gamma: Array, scale: Array, offsets: Array
) -> tuple[Array, Array]:
    function = partial(_FUNCTIONS[kind], model)
    return jax.vmap(function, in_axes=(0, None, None, 0))(y, gamma, scale, offsets)


@eqx.filter_jit
def _x_hat(model: DiffusionModel, y: Array, gamma: Array) -> Array:
    return jax.vmap(model.x_hat, in_axes=(0, None))(y, gamma)


@dataclass(frozen=True)
class Network:
    """What the network says of latents, in integers.

    Args:
        model: `in_precision` dtype.
        batch: images at a time.
    """

    model: DiffusionModel
    layers: Layers
    batch: int
    dtype: Precision

    def encoded(self, k: Int[np.ndarray, "n h w c"], t: int) -> tuple[np.ndarray, Int[np.ndarray, " n"], np.ndarray]:
        """The integers of each image, the offsets that guard them, and whether there are such."""
        offsets = np.zeros(len(k), np.int64)
        integers, clear = self.decoded(k, t, offsets)
        while not clear.all() and offsets.max() < OFFSETS - 1:
            offsets[~clear] += 1
            integers, clear = self.decoded(k, t, offsets)  # all of them, as the decoder will: float32 asks for it
        return integers, offsets, clear

    def decoded(
        self, k: Int[np.ndarray, "n h w c"], t: int, offsets: Int[np.ndarray, " n"]
    ) -> tuple[np.ndarray, Bool[np.ndarray, " n"]]:
        """The integers of each image at these offsets, of step t, or of the observation for t = 0; whether guarded."""
        parts = []
        for rows, size in self._pieces(len(k)):
            padded = np.resize(rows, size)
            parts.append([array[: len(rows)] for array in self._call(k[padded], t, offsets[padded])])
        integers, clear = (np.concatenate(part) for part in zip(*parts, strict=True))
        return integers, clear

    def x_hat(self, k: Int[np.ndarray, "n h w c"], t: int) -> Float[np.ndarray, "n h w c"]:
        """What is known of images whose y_t = k d_t is: their mean."""
        with jax.enable_x64(True):
            y, gamma = self._inputs(k, t)
            return np.asarray(_x_hat(self.model, y, gamma), np.float64)

    def _pieces(self, count: int) -> Iterator[tuple[Int[np.ndarray, " n"], int]]:
        """Images, and the size that they are filled up to: a batch that would be half empty goes in small ones."""
        few, first = min(_FEW, self.batch), 0
        while first < count:
            size = self.batch if count - first > self.batch // 2 else few
            yield np.arange(first, min(first + size, count)), size
            first += size

    def _inputs(self, k: np.ndarray, t: int) -> tuple[Array, Array]:
        return jnp.asarray(k * self.layers.d[t], self.dtype), jnp.asarray(self.layers.gamma[t], self.dtype)

    def _call(self, k: np.ndarray, t: int, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        layers = self.layers
        kind = ("mixture" if layers.mixture else "gaussian") if t else "levels"
        scale = layers.s[t] * layers.c[t - 1] / layers.d[t - 1] * FINE
        with jax.enable_x64(True):  # for the integers, whatever the network's precision
            y, gamma = self._inputs(k, t)
            found = _call(kind, self.model, y, gamma, jnp.asarray(scale, self.dtype), jnp.asarray(offsets))
            return np.array(found[0]), np.array(found[1])
