# SPDX-License-Identifier: Apache-2.0
"""Bits back through the T-step model (Townsend et al. 2019, arXiv 1901.04866; Kingma et al. 2021, section 6).

The encoder pops each latent, and pushes what it explains as soon as possible:

    pop y_0 ~ q(y_0 | x)          push x ~ p(x | y_0)
    pop y_t ~ q(y_t | y_{t-1})    push y_{t-1} ~ p(y_{t-1} | y_t)       t = 1 .. T
                                  push y_T ~ p(y_T)

The decoder reverses these operations. On average -log2 p minus -log2 q is the T-step bound. A chunk of many images is
coded on one stack, in growing groups, so that the initial bits are those of one image only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer, UInt8, UInt16, UInt64

from vdmkit.errors import CodecError
from vdmkit_codec.distributions import AbstractLaw, GaussianLaw, GaussianTable, LevelsLaw, even, mostly_zero, pop, push
from vdmkit_codec.layers import Layers
from vdmkit_codec.network import OFFSETS, Network
from vdmkit_codec.payload import Payload
from vdmkit_codec.rans import PRECISION, Stack, first_heads, keystream, push_fused, seed_words

_VALUES_OF_LANE = 1024  # at most twice as many
Images = UInt8[np.ndarray, "n h w c"]
Levels = UInt16[np.ndarray, " n"]
Latents = Int64[np.ndarray, "n h w c"]
OnLatent = Callable[[Integer[np.ndarray, " n"], int, Latents], object]
"""A callback on_latent(indices of images in the chunk, t, their y_t in cells)."""


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


@dataclass(frozen=True)
class ChunkCode:
    """The code of a chunk.

    Args:
        chain: The model's code.
        lanes: Largest number of lanes of a stack.
        group: Largest number of images that are coded together.
        seed: Seed of the bits that an empty stack is filled with.
    """

    chain: Chain
    lanes: int
    group: int
    seed: int

    def encode(self, images: Images, on_group: Callable[[int], object] = lambda count: None) -> tuple[Payload, float]:
        """Returns the payload, and the net bits: those on the stack minus the initial ones.

        All images are stored if that takes fewer bytes than the payload with its initial bits.
        """
        levels = self._stored_levels(images)
        coded = self._encode(images, self._beyond(images), on_group)
        if len(coded[0].to_bytes()) <= np.log2(levels).sum() * images[:1].size / 8:
            return coded
        stored = self._encode(images, np.ones(len(images), bool), lambda count: None)
        return min(coded, stored, key=lambda one: len(one[0].to_bytes()))

    def _encode(
        self, images: Images, stored: Bool[np.ndarray, " n"], on_group: Callable[[int], object]
    ) -> tuple[Payload, float]:
        """Encodes images; those in `stored` are stored in any case."""
        stack = Stack(first_heads(self.seed, self.lanes_for(images.size)), seed=self.seed)
        start, groups, levels = stack.bits, [], self._stored_levels(images)
        kinds = np.zeros(len(images), np.uint16)
        while (first := sum(groups)) < len(images):
            size = self.size_of_group(stack.length, len(images) - first)
            rows = slice(first, first + size)
            stack, kinds[rows] = self._encode_group(stack, images[rows], len(groups), levels[rows], stored[rows])
            groups.append(size)
            on_group(size)
        return Payload(tuple(groups), kinds, stack.seeded, stack.heads, stack.words), stack.bits - start

    def decode(
        self,
        payload: Payload,
        on_group: Callable[[int], object] = lambda count: None,
        on_latent: OnLatent = lambda which, t, k: None,
    ) -> Images:
        """Decodes a payload.

        Raises CodecError if the final stack differs from the initial one, as with a different model, or if the number
        of lanes is not the one that a writer uses for so many images.
        """
        count = sum(payload.groups)
        images = np.zeros((count, *self.chain.network.model.shape), np.uint8)
        if len(payload.heads) != self.lanes_for(images.size):  # each number of lanes would be compiled separately
            raise CodecError(f"a chunk of {count:,} images has {len(payload.heads):,} lanes, which no writer gives it")
        stack, first = Stack(payload.heads.copy(), payload.words.copy(), len(payload.words)), count
        for number, size in reversed(list(enumerate(payload.groups))):
            first -= size
            stored = payload.stored[first : first + size]
            callback = partial(on_latent, np.flatnonzero(stored == 0) + first)
            images[first : first + size] = self._decode_group(stack, stored, number, callback)
            on_group(size)
        self._check_end(stack, payload.seeded)
        return images

    def size_of_group(self, words: int, left: int) -> int:
        """Returns the size of the next group: as many of the remaining images as the words have bits for.

        It is rounded down to whole batches of the network.
        """
        owed = self.chain.layers.bits * np.prod(self.chain.network.model.shape)
        return self.chain.network.without_padding(int(min(left, self.group, max(1, 32 * words // owed))))

    def lanes_for(self, values: int) -> int:
        """Returns the number of lanes of a chunk: a lane takes about 10 bytes, but fewer lanes need more rows."""
        return min(self.lanes, 1 << max(0, (values // _VALUES_OF_LANE).bit_length() - 1))

    def _beyond(self, images: Images) -> Bool[np.ndarray, " n"]:
        """Returns which images have pixels beyond the model's levels."""
        return images.reshape(len(images), images[:1].size).max(1, initial=0) >= self.chain.layers.levels

    def _stored_levels(self, images: Images) -> Levels:
        """Returns the number of levels of each image if it is stored: that of the data, or 256."""
        return np.where(self._beyond(images), 256, self.chain.layers.levels).astype(np.uint16)

    def _encode_group(
        self, stack: Stack, images: Images, number: int, levels: Levels, stored: Bool[np.ndarray, " n"]
    ) -> tuple[Stack, Levels]:
        """Returns the stack after the images, and the levels of those stored, including any that take fewer bits so."""
        stored, most = stored.copy(), images[0].size * np.log2(levels)
        while True:
            tried, bits = stack.copy(), np.zeros(0)
            if not stored.all():
                bits = self.chain.encode(tried, images[~stored], self._seed(number))
            more = bits > most[~stored]
            if not more.any():
                kinds = np.where(stored, levels, 0).astype(np.uint16)
                for kind in _kinds(kinds)[::-1]:
                    written = images[kinds == kind].astype(np.int64).ravel()
                    push(tried, even(len(written), kind), written)
                return tried, kinds
            stored[np.flatnonzero(~stored)[more]] = True

    def _decode_group(
        self,
        stack: Stack,
        stored: Levels,
        number: int,
        on_latent: Callable[[int, Latents], object],
    ) -> Images:
        images = np.zeros((len(stored), *self.chain.network.model.shape), np.uint8)
        for kind in _kinds(stored):
            size = images[stored == kind].size
            images[stored == kind] = pop(stack, even(size, kind), size).reshape(images[stored == kind].shape)
        coded = stored == 0
        if coded.any():
            images[coded] = self.chain.decode(stack, int(coded.sum()), self._seed(number), on_latent)
        return images

    def _seed(self, group: int) -> int:
        """Returns the seed of a group's whitening."""
        return int(keystream(self.seed, 2**40 + group, 1)[0])

    def _check_end(self, stack: Stack, seeded: int) -> None:
        heads, words = first_heads(self.seed, len(stack.heads)), seed_words(self.seed, 0, stack.length)
        same = np.array_equal(stack.heads, heads) and np.array_equal(stack.words[::-1], words)
        if not same or stack.length != seeded:
            raise CodecError("wrong model or corrupt data: the final state of the coder is not the initial one")


def _kinds(stored: Levels) -> list[int]:
    """Returns the numbers of levels of stored images, in the order in which they are decoded."""
    return [int(kind) for kind in np.unique(stored) if kind]
