# SPDX-License-Identifier: Apache-2.0
"""Calls the network for any number of images, in batches of two sizes, each compiled once."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from vdmkit.model import DiffusionModel
from vdmkit_codec.compression._gaussian_law import FINE
from vdmkit_codec.compression._layers import Layers
from vdmkit_codec.compression._predict import MARGIN, OFFSETS, Latent, gaussian_shift, level_weights, mixture_weights

Precision = Literal["float64", "float32"]
_FEW = {"float64": 1, "float32": 8}  # images in a small batch
_FULL = {"float64": 0.75, "float32": 0.5}  # share of a batch above which it is filled up; files of float32 depend on it
_THREADS = ThreadPoolExecutor(os.cpu_count())  # a call on few images does not fill several cores
_ARRAY = object()  # where a form has an array
_FUNCTIONS = {"gaussian": gaussian_shift, "mixture": mixture_weights, "levels": level_weights}


def in_precision(model: DiffusionModel, dtype: Precision) -> DiffusionModel:
    """Returns the model with parameters of this type."""
    with jax.enable_x64(True):
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, model)


@dataclass(frozen=True)
class _Form:
    """What a model is besides its arrays. Models of equal forms share compiled functions."""

    structure: Any
    others: tuple[Any, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # a call of a compiled function asks for it
        return hash((self.structure, self.others))

    def model(self, arrays: list[Array]) -> DiffusionModel:
        """Returns the model of these arrays."""
        given = iter(arrays)
        leaves = [next(given) if other is _ARRAY else other for other in self.others]
        return jax.tree.unflatten(self.structure, leaves)


def _parts(model: DiffusionModel) -> tuple[_Form, list[Array]]:
    """Returns the form of a model, and its arrays."""
    leaves, structure = jax.tree.flatten(model)
    others = tuple(_ARRAY if eqx.is_array(leaf) else leaf for leaf in leaves)
    return _Form(structure, others), [leaf for leaf in leaves if eqx.is_array(leaf)]


@partial(jax.jit, static_argnames=("kind", "form"))
def _integers(kind: str, form: _Form, arrays: list[Array], y: Any, offsets: Any, *of_step: Any) -> tuple[Array, Array]:
    """Returns the integers for latents of several images at one noise level, and whether they are guarded."""
    model = form.model(arrays)

    def of_image(y: Array, offset: Array) -> tuple[Array, Array]:
        return _FUNCTIONS[kind](model, Latent(y, *of_step, offset=offset))

    return jax.vmap(of_image)(y, offsets)


@partial(jax.jit, static_argnames="form")
def _x_hat(form: _Form, arrays: list[Array], y: Any, gamma: Any) -> Array:
    return jax.vmap(form.model(arrays).x_hat, in_axes=(0, None))(y, gamma)


@dataclass(frozen=True)
class Network:
    """The network's outputs as integers.

    Args:
        model: The model, from `in_precision` with `dtype`.
        layers: The steps.
        batch: Number of images in a call.
        dtype: Precision of the network.
    """

    model: DiffusionModel
    layers: Layers
    batch: int
    dtype: Precision

    @cached_property
    def _parts(self) -> tuple[_Form, list[Array]]:
        """Returns the model taken apart once, and not in each of hundreds of calls."""
        return _parts(self.model)

    @property
    def _few(self) -> int:
        return min(_FEW[self.dtype], self.batch)

    def without_padding(self, count: int) -> int:
        """Returns at most so many images, fewer if small batches of `count` would not be full."""
        return count - count % self._few if count > self._few else count

    def encoded(self, k: Int[np.ndarray, "n h w c"], t: int) -> tuple[np.ndarray, Int[np.ndarray, " n"], np.ndarray]:
        """Returns the integers of each image, the offsets that guard them, and whether such offsets exist."""
        offsets = np.zeros(len(k), np.int64)
        integers, clear = self.decoded(k, t, offsets)
        for offset in range(1, OFFSETS):
            again = np.flatnonzero(~clear)
            if not len(again):
                break
            offsets[again] = offset
            integers[again], clear[again] = self.decoded(k[again], t, offsets[again])
        return integers, offsets, clear

    def decoded(
        self, k: Int[np.ndarray, "n h w c"], t: int, offsets: Int[np.ndarray, " n"]
    ) -> tuple[np.ndarray, Bool[np.ndarray, " n"]]:
        """Returns the integers of each image at these offsets, and whether they are guarded.

        They are those of step t, or of the observation for t = 0.
        """
        layers = self.layers
        kind = ("mixture" if layers.mixture else "gaussian") if t else "levels"
        scale = layers.s[t] * layers.c[t - 1] / layers.d[t - 1] * FINE
        margin = MARGIN if self.dtype == "float64" else 0.0  # float32 must agree to the last bit
        y = k * layers.d[t]

        def call(rows: np.ndarray) -> tuple[Array, ...]:
            some, *of_step = self._floats(y[rows], layers.gamma[t], scale, margin)
            return _integers(kind, *self._parts, some, offsets[rows], *of_step)

        integers, clear = self._in_batches(len(k), call)
        return integers, clear

    def x_hat(self, k: Int[np.ndarray, "n h w c"], t: int) -> Float[np.ndarray, "n h w c"]:
        """Returns the model's estimate of the images at y_t = k d_t."""
        y = k * self.layers.d[t]

        def call(rows: np.ndarray) -> tuple[Array, ...]:
            return (_x_hat(*self._parts, *self._floats(y[rows], self.layers.gamma[t])),)

        return self._in_batches(len(k), call)[0]

    def _in_batches(
        self, count: int, call: Callable[[Int[np.ndarray, " b"]], tuple[Array, ...]]
    ) -> list[Shaped[np.ndarray, "n ..."]]:
        """Returns the results for `count` images from calls of fixed size; the last call repeats some images."""
        batches, first = list[np.ndarray](), 0
        while first < count:
            size = self.batch if count - first > self.batch * _FULL[self.dtype] else self._few
            batches.append(np.resize(np.arange(first, min(first + size, count)), size))
            first += size

        def results(rows: np.ndarray) -> list[np.ndarray]:  # jaxtyping would take 0.1 ms in each call of this method
            with jax.enable_x64(True):  # the integers need 64 bits at any precision of the network
                return [np.array(array) for array in call(rows)]

        # float32 stays in this thread, whose settings of JAX, such as the precision of products, are its own
        several = len(batches) > 1 and self.dtype == "float64"
        parts = (_THREADS.map if several else map)(results, batches)
        return [np.concatenate(part)[:count] for part in zip(*parts, strict=True)]

    def _floats(self, *values: float | Float[np.ndarray, "..."]) -> list[Float[np.ndarray, "..."]]:
        return [np.asarray(value, self.dtype) for value in values]
