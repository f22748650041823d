# SPDX-License-Identifier: Apache-2.0
"""Codes many images on one stack, in growing groups, so that the initial bits are those of one image only."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from vdmkit.errors import CodecError
from vdmkit_codec.compression._chain import Chain, Latents
from vdmkit_codec.compression._law import pop, push
from vdmkit_codec.compression._levels_law import even
from vdmkit_codec.compression._rans import Stack, first_heads, keystream, seed_words
from vdmkit_codec.container import Payload

Images = UInt8[np.ndarray, "n h w c"]
OnLatent = Callable[[Integer[np.ndarray, " n"], int, Latents], object]
"""A callback on_latent(indices of images in the chunk, t, their y_t in cells)."""


@dataclass(frozen=True)
class ChunkCode:
    """The code of a chunk.

    Args:
        chain: The model's code.
        lanes: Number of lanes of the stack.
        group: Largest number of images that are coded together.
        seed: Seed of the bits that an empty stack is filled with.
    """

    chain: Chain
    lanes: int
    group: int
    seed: int

    def encode(self, images: Images, on_group: Callable[[int], object] = lambda count: None) -> tuple[Payload, float]:
        """Returns the payload, and the net bits: those on the stack minus the initial ones."""
        stack = Stack(first_heads(self.seed, self.lanes), seed=self.seed)
        start, groups, stored = stack.bits, [], np.zeros(len(images), bool)
        levels = self._stored_levels(images)
        while (first := sum(groups)) < len(images):
            size = self.size_of_group(stack.length, len(images) - first)
            rows = slice(first, first + size)
            stack, stored[rows] = self._encode_group(stack, images[rows], len(groups), levels)
            groups.append(size)
            on_group(size)
        payload = Payload(tuple(groups), stored, levels, stack.seeded, stack.heads, stack.words)
        return payload, stack.bits - start

    def decode(
        self,
        payload: Payload,
        on_group: Callable[[int], object] = lambda count: None,
        on_latent: OnLatent = lambda which, t, k: None,
    ) -> Images:
        """Decodes a payload. Raises CodecError if the final stack is not an initial one, as with another model."""
        count = sum(payload.groups)
        images = np.zeros((count, *self.chain.network.model.shape), np.uint8)
        stack, first = Stack(payload.heads.copy(), payload.words.copy(), len(payload.words)), count
        for number, size in reversed(list(enumerate(payload.groups))):
            first -= size
            stored = payload.stored[first : first + size]
            told = partial(on_latent, np.flatnonzero(~stored) + first)
            images[first : first + size] = self._decode_group(stack, stored, number, payload.stored_levels, told)
            on_group(size)
        self._check_end(stack)
        return images

    def size_of_group(self, words: int, left: int) -> int:
        """Returns the size of the next group: as many of the remaining images as the words have bits for."""
        owed = self.chain.layers.bits * np.prod(self.chain.network.model.shape)
        return int(min(left, self.group, max(1, 32 * words // owed)))

    def _stored_levels(self, images: Images) -> int:
        """Returns the number of levels of stored images: that of the data, unless an image has more."""
        most = int(images.max(initial=0)) + 1
        return self.chain.layers.levels if most <= self.chain.layers.levels else 256

    def _encode_group(
        self, stack: Stack, images: Images, number: int, levels: int
    ) -> tuple[Stack, Bool[np.ndarray, " n"]]:
        """Returns the stack with the images on it, and which images are stored because that takes fewer bits."""
        stored = images.reshape(len(images), -1).max(1, initial=0) >= self.chain.layers.levels
        most = images[0].size * np.log2(levels)
        while True:
            tried, bits = stack.copy(), np.zeros(0)
            if not stored.all():
                bits = self.chain.encode(tried, images[~stored], self._seed(number))
            if not (bits > most).any():
                written = images[stored].astype(np.int64).ravel()
                push(tried, even(len(written), levels), written)
                return tried, stored
            stored[np.flatnonzero(~stored)[bits > most]] = True

    def _decode_group(
        self,
        stack: Stack,
        stored: Bool[np.ndarray, " n"],
        number: int,
        levels: int,
        on_latent: Callable[[int, Latents], object],
    ) -> Images:
        images = np.zeros((len(stored), *self.chain.network.model.shape), np.uint8)
        size = images[stored].size
        images[stored] = pop(stack, even(size, levels), size).reshape(images[stored].shape)
        if not stored.all():
            images[~stored] = self.chain.decode(stack, int((~stored).sum()), self._seed(number), on_latent)
        return images

    def _seed(self, group: int) -> int:
        """Returns the seed of a group's whitening."""
        return int(keystream(self.seed, 2**40 + group, 1)[0])

    def _check_end(self, stack: Stack) -> None:
        heads, words = first_heads(self.seed, len(stack.heads)), seed_words(self.seed, 0, stack.length)
        if not (np.array_equal(stack.heads, heads) and np.array_equal(stack.words[::-1], words)):
            raise CodecError("its bits do not end as they began: they belong to another model, or were changed")
