# SPDX-License-Identifier: Apache-2.0
"""Bits back through the T-step model (Townsend et al. 2019, arXiv 1901.04866; Kingma et al. 2021, section 6).

The encoder pops each latent, and pushes what it explains as soon as possible:

    pop y_0 ~ q(y_0 | x)          push x ~ p(x | y_0)
    pop y_t ~ q(y_t | y_{t-1})    push y_{t-1} ~ p(y_{t-1} | y_t)       t = 1 .. T
                                  push y_T ~ p(y_T)

The decoder reverses these operations. On average -log2 p minus -log2 q is the T-step bound.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, Integer, UInt8, UInt64

from vdmkit.errors import CodecError
from vdmkit_codec.compression._fused import push_fused
from vdmkit_codec.compression._gaussian_law import GaussianLaw, GaussianTable
from vdmkit_codec.compression._law import AbstractLaw, pop, push
from vdmkit_codec.compression._layers import Layers
from vdmkit_codec.compression._levels_law import LevelsLaw, mostly_zero
from vdmkit_codec.compression._network import Network
from vdmkit_codec.compression._predict import OFFSETS
from vdmkit_codec.compression._rans import PRECISION, Stack, keystream

Latents = Int64[np.ndarray, "n h w c"]


@dataclass(frozen=True)
class Chain:
    """The model as a code. Latents are integers that count cells."""

    network: Network

    @property
    def layers(self) -> Layers:
        return self.network.layers

    def encode(self, stack: Stack, images: UInt8[np.ndarray, "n h w c"], seed: int) -> Float[np.ndarray, " n"]:
        """Pushes images. Returns the net bits of each.

        If the rounding of an image cannot be guarded, its bits are infinite and nothing is pushed.
        """
        below, bits = images.astype(np.int64), np.zeros(len(images))
        for t in range(self.layers.steps + 1):
            q = self._q(t, below)
            above = q.pop_from(stack, below.size, _keys(seed, t, below.size)).reshape(below.shape)
            bits -= _of_images(PRECISION - np.log2(q.intervals(above.ravel())[1]), len(images))
            integers, offsets, clear = self.network.encoded(above, t)
            if not clear.all():
                return np.where(clear, 0, np.inf)
            bits += _of_images(push(stack, self._p(t, above, integers), below.ravel()), len(images))
            bits += push(stack, mostly_zero(len(images), OFFSETS), offsets)
            below = above
        return bits + _of_images(push(stack, self._prior(below.size), below.ravel()), len(images))

    def decode(
        self, stack: Stack, count: int, seed: int, on_latent: Callable[[int, Latents], object] = lambda t, k: None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """Pops images. `on_latent` is called with t and k of each latent y_t = k d_t.

        Raises:
            CodecError: the bits were not written by `encode`.
        """
        shape = (count, *self.network.model.shape)
        above = pop(stack, self._prior(int(np.prod(shape))), int(np.prod(shape))).reshape(shape)
        for t in range(self.layers.steps, -1, -1):
            on_latent(t, above)
            offsets = pop(stack, mostly_zero(count, OFFSETS), count)
            integers, _ = self.network.decoded(above, t, offsets)
            below = pop(stack, self._p(t, above, integers), above.size).reshape(shape)
            starts, frequencies = self._q(t, below).intervals(above.ravel())
            if not (frequencies > 0).all():
                raise CodecError("it holds latents that this model does not give")
            push_fused(stack, starts, frequencies, _keys(seed, t, above.size))
            above = below
        return above.astype(np.uint8)

    def _q(self, t: int, below: Latents) -> GaussianLaw:
        """Returns q(y_t | y_{t-1}), or q(y_0 | x)."""
        layers = self.layers
        means = layers.parts(below, of=t - 1, on=t) if t else layers.parts_of_level(below)
        return layers.q[t].at(means.ravel())

    def _p(self, t: int, above: Latents, integers: Integer[np.ndarray, "n h w c *v"]) -> AbstractLaw:
        """Returns p(y_{t-1} | y_t), or p(x | y_0), from the network's integers at y_t."""
        if not t:
            return LevelsLaw(integers.reshape(above.size, -1))
        layers, table = self.layers, self.layers.p[t - 1]
        if isinstance(table, GaussianTable):
            return table.at((layers.parts(above, of=t, on=t - 1) + integers).ravel())
        places = layers.parts(above, of=t, on=t - 1, scale=float(1 - layers.c[t - 1]))
        return table.at(places.ravel(), integers.reshape(above.size, -1))

    def _prior(self, count: int) -> GaussianLaw:
        return self.layers.prior.at(np.zeros(count, np.int64))


def _keys(seed: int, t: int, count: int) -> UInt64[np.ndarray, " count"]:
    return keystream(seed, t * count, count)


def _of_images(bits: Float[np.ndarray, " n_values"], count: int) -> Float[np.ndarray, " count"]:
    return bits.reshape(count, -1).sum(1)
