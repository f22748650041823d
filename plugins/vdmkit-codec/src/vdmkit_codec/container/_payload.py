# SPDX-License-Identifier: Apache-2.0
"""The payload of a chunk: the sizes of the groups of images, which images are stored, and the stack."""

import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt16, UInt32, UInt64

from vdmkit.errors import CodecError
from vdmkit_codec.container._limits import Limits
from vdmkit_codec.container._varint import Cursor, pack_unsigned

_FIXED = struct.Struct("<IHHII")  # of version 1: groups, lanes, levels of stored images, initial words, words
_MOST_LANES = 65535
_BYTE = 256  # levels of images that the model's levels do not hold


@dataclass(frozen=True)
class Payload:
    """The payload of a chunk.

    Args:
        groups: Number of images in each group, in the order of coding.
        stored: Number of levels of each image that is stored uncompressed, and 0 for the others.
        seeded: Number of random words that the empty stack was filled with, which remain after decoding. For a few
            small images it may exceed the number of `words`, because the heads hold some of them.
        heads: Heads of the stack.
        words: Words of the stack's tail.
    """

    groups: tuple[int, ...]
    stored: UInt16[np.ndarray, " n"]
    seeded: int
    heads: UInt64[np.ndarray, " lanes"]
    words: UInt32[np.ndarray, " words"]

    @property
    def initial_bits(self) -> int:
        """Returns the initial bits of the stack: half of each head, and the random words."""
        return 32 * (len(self.heads) + self.seeded)

    def to_bytes(self) -> bytes:
        """Returns the payload in the form of version 2. Stored images have 256 levels, or all others the same number.

        lanes, initial words, number of groups, size of each; levels - 1 of stored images, or 0 without, then two bits
        of each image: 0 coded, 1 of these levels, 2 of 256; heads 8 each, words 4 each.
        """
        numbers = [len(self.heads), self.seeded, len(self.groups), *self.groups]
        fields = b"".join(pack_unsigned(int(number)) for number in numbers) + self._kinds()
        return fields + self.heads.astype("<u8").tobytes() + self.words.astype("<u4").tobytes()

    def _kinds(self) -> bytes:
        if not self.stored.any():
            return bytes(1)
        levels = [int(one) for one in np.unique(self.stored) if 0 < one < _BYTE] or [_BYTE]
        if len(levels) > 1:
            raise ValueError(f"stored images of {levels} levels")
        kinds = np.where(self.stored == 0, 0, np.where(self.stored == _BYTE, 2, 1)).astype(np.uint8)
        bits = np.stack([kinds >> 1, kinds & 1], axis=1).ravel()
        return bytes([levels[0] - 1]) + np.packbits(bits).tobytes()


def payload_of(data: bytes, images: int, limits: Limits, version: int = 2) -> Payload:
    """Parses a payload. Raises CodecError if it is not a payload of this number of images, or beyond the limits."""
    limits.check_images("a chunk", images)
    try:
        payload = _first_version(data, images) if version == 1 else _parsed(Cursor(data), images)
    except ValueError as error:
        raise CodecError(f"a chunk's lengths do not fit it: {error}") from error
    if sum(payload.groups) != images or 0 in payload.groups:
        raise CodecError("a chunk's groups do not add up to its images")
    if max(payload.groups, default=0) > limits.group:
        raise CodecError(f"a group has {max(payload.groups):,} images, and the header allows {limits.group:,}")
    if (payload.heads < 1 << 32).any():
        raise CodecError("a chunk's heads are outside of the range of a stack")
    stored = payload.stored[payload.stored > 0]
    if (stored < 2).any() or np.log2(stored).sum() * limits.values > 8 * len(data) + 64:
        raise CodecError("a chunk's stored images do not fit it")
    return payload


def _parsed(cursor: Cursor, images: int) -> Payload:
    lanes, seeded = cursor.unsigned(), cursor.unsigned()
    groups = tuple(cursor.unsigned() for _ in range(cursor.count()))
    levels = cursor.bytes(1)[0] + 1
    stored = np.zeros(images, np.uint16)
    if levels > 1:
        bits = np.unpackbits(np.frombuffer(cursor.bytes(-(-images // 4)), np.uint8))[: 2 * images].reshape(-1, 2)
        stored = np.asarray([0, levels, _BYTE, 0], np.uint16)[bits @ np.array([2, 1], np.uint8)]
    if not 1 <= lanes <= _MOST_LANES or 8 * lanes > cursor.left or cursor.left % 4:
        raise ValueError(f"{lanes} lanes in {cursor.left} bytes")
    heads = np.frombuffer(cursor.bytes(8 * lanes), "<u8").astype(np.uint64)
    words = np.frombuffer(cursor.bytes(cursor.left), "<u4").astype(np.uint32)
    return Payload(groups, stored, seeded, heads, words)


def _first_version(data: bytes, images: int) -> Payload:
    if len(data) < _FIXED.size:
        raise ValueError("it is too short")
    groups, lanes, levels, seeded, words = _FIXED.unpack_from(data)
    sizes = np.array([2 * groups, -(-images // 8), 8 * lanes, 4 * words])
    if _FIXED.size + int(sizes.sum()) != len(data) or not 1 <= levels <= _BYTE or not lanes:
        raise ValueError("another number of bytes is expected")
    ends = _FIXED.size + np.cumsum(sizes)
    parts = [data[end - size : end] for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]
    of_groups = tuple(int(size) for size in np.frombuffer(parts[0], "<u2"))
    stored = np.unpackbits(np.frombuffer(parts[1], np.uint8))[:images].astype(np.uint16) * np.uint16(levels)
    heads, tail = np.frombuffer(parts[2], "<u8").astype(np.uint64), np.frombuffer(parts[3], "<u4").astype(np.uint32)
    return Payload(of_groups, stored, seeded, heads, tail)
