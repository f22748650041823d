# SPDX-License-Identifier: Apache-2.0
"""Codes many images on one stack, in growing groups, so that the initial bits are those of one image only."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Integer, UInt8, UInt16

from vdmkit.errors import CodecError
from vdmkit_codec.compression._chain import Chain, Latents
from vdmkit_codec.compression._law import pop, push
from vdmkit_codec.compression._levels_law import even
from vdmkit_codec.compression._rans import Stack, first_heads, keystream, seed_words
from vdmkit_codec.container import Payload

_VALUES_OF_LANE = 1024  # at most twice as many
Images = UInt8[np.ndarray, "n h w c"]
Levels = UInt16[np.ndarray, " n"]
OnLatent = Callable[[Integer[np.ndarray, " n"], int, Latents], object]
"""A callback on_latent(indices of images in the chunk, t, their y_t in cells)."""


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
        """Encodes images, of which some are stored in any case."""
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

        Raises CodecError if the final stack is not an initial one, as with another model, or if no writer makes a
        stack of so many lanes for so many images.
        """
        count = sum(payload.groups)
        images = np.zeros((count, *self.chain.network.model.shape), np.uint8)
        self._check_lanes(len(payload.heads), images)
        stack, first = Stack(payload.heads.copy(), payload.words.copy(), len(payload.words)), count
        for number, size in reversed(list(enumerate(payload.groups))):
            first -= size
            stored = payload.stored[first : first + size]
            told = partial(on_latent, np.flatnonzero(stored == 0) + first)
            images[first : first + size] = self._decode_group(stack, stored, number, told)
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
        """Returns the number of lanes of a chunk: a lane takes about 10 bytes, and fewer lanes more rows."""
        return min(self.lanes, 1 << max(0, (values // _VALUES_OF_LANE).bit_length() - 1))

    def _check_lanes(self, lanes: int, images: Images) -> None:
        """Raises CodecError for lanes for which a reader would compile anew. Version 1 always wrote the most lanes."""
        if lanes not in (self.lanes_for(images.size), self.lanes):
            raise CodecError(f"a chunk of {len(images):,} images has {lanes:,} lanes, which no writer gives it")

    def _beyond(self, images: Images) -> Bool[np.ndarray, " n"]:
        """Returns which images have pixels beyond the model's levels."""
        return images.reshape(len(images), images[:1].size).max(1, initial=0) >= self.chain.layers.levels

    def _stored_levels(self, images: Images) -> Levels:
        """Returns the number of levels of each image if it is stored: that of the data, or 256."""
        return np.where(self._beyond(images), 256, self.chain.layers.levels).astype(np.uint16)

    def _encode_group(
        self, stack: Stack, images: Images, number: int, levels: Levels, stored: Bool[np.ndarray, " n"]
    ) -> tuple[Stack, Levels]:
        """Returns the stack with the images on it, and the levels of those that are stored, or take fewer bits so."""
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
            raise CodecError("its bits do not end as they began: they belong to another model, or were changed")


def _kinds(stored: Levels) -> list[int]:
    """Returns the numbers of levels of stored images, in the order in which they are decoded."""
    return [int(kind) for kind in np.unique(stored) if kind]
