# SPDX-License-Identifier: Apache-2.0
"""The payload of a chunk: the sizes of the groups of images, which images are stored, and the stack.

    number of lanes, of initial words, of groups; size of each group
    levels - 1 of stored images (1 byte), 0 if there are none; else two bits for each image: 0 coded, 1 stored with
    these levels, 2 stored with 256
    heads (8 bytes each), words (4 bytes each)

Numbers without a size take seven bits a byte, the lowest first; the last byte is below 128. Importing this module does
not load JAX.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from jaxtyping import UInt16, UInt32, UInt64

from vdmkit.errors import CodecError

MAX_PIXELS = 1 << 26  # values in a chunk, which is held in memory
_MOST = 65535  # images in a chunk or a group, and lanes
_BYTE = 256  # levels of stored images that have pixels beyond the model's levels


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
        """Initial bits of the stack: half of each head, and the random words."""
        return 32 * (len(self.heads) + self.seeded)

    def to_bytes(self) -> bytes:
        """Returns the bytes described above. Stored images have 256 levels, or all others the same number."""
        levels = [int(one) for one in np.unique(self.stored) if 0 < one < _BYTE] or [_BYTE]
        if len(levels) > 1:
            raise ValueError(f"stored images of {levels} levels")
        stored = bytes(1)
        if self.stored.any():
            kinds = np.where(self.stored == 0, 0, np.where(self.stored == _BYTE, 2, 1)).astype(np.uint8)
            stored = bytes([levels[0] - 1]) + np.packbits(np.stack([kinds >> 1, kinds & 1], axis=1).ravel()).tobytes()
        numbers = [len(self.heads), self.seeded, len(self.groups), *self.groups]
        fields = b"".join(_packed(int(number)) for number in numbers) + stored
        return fields + self.heads.astype("<u8").tobytes() + self.words.astype("<u4").tobytes()


@dataclass(frozen=True)
class Limits:
    """What a reader allows in a chunk, whatever the file's checksums are.

    Args:
        chunk: Largest number of images in a chunk.
        group: Largest number of images in a group.
        values: Number of values in an image.
        max_pixels: Largest number of values in a chunk.
    """

    chunk: int
    group: int
    values: int
    max_pixels: int = MAX_PIXELS


def limits_of(header: dict[str, Any], max_pixels: int = MAX_PIXELS) -> Limits:
    """Returns the limits in a header; fields that are not valid are ignored."""
    shape, values = header.get("shape"), 1
    if isinstance(shape, list) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape):
        values = prod(shape)
    chunk, group = (
        value if type(value) is int and 1 <= value <= _MOST else _MOST
        for value in (header.get("chunk"), header.get("group"))
    )
    return Limits(chunk, group, values, max_pixels)


def payload_of(data: bytes, images: int, limits: Limits) -> Payload:
    """Parses a payload. Raises CodecError if it is not one of this number of images, or exceeds the limits."""
    if images > limits.chunk:
        raise CodecError(f"a chunk has {images:,} images, and its header allows {limits.chunk:,}")
    if images * limits.values > limits.max_pixels:
        raise CodecError(
            f"a chunk has {images * limits.values:,} pixels, more than {limits.max_pixels:,}. If you trust the file: "
            f"--max-pixels {images * limits.values}"
        )
    try:
        payload = _parsed(_Cursor(data), images)
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


def _parsed(cursor: "_Cursor", images: int) -> Payload:
    lanes, seeded, groups = cursor.number(), cursor.number(), cursor.number()
    if groups > cursor.left:
        raise ValueError("it ends within its groups")
    sizes = tuple(cursor.number() for _ in range(groups))
    levels = cursor.bytes(1)[0] + 1
    stored = np.zeros(images, np.uint16)
    if levels > 1:
        bits = np.unpackbits(np.frombuffer(cursor.bytes(-(-images // 4)), np.uint8))[: 2 * images].reshape(-1, 2)
        stored = np.asarray([0, levels, _BYTE, 0], np.uint16)[bits @ np.array([2, 1], np.uint8)]
    if not 1 <= lanes <= _MOST or 8 * lanes > cursor.left or cursor.left % 4:
        raise ValueError(f"{lanes} lanes in {cursor.left} bytes")
    heads = np.frombuffer(cursor.bytes(8 * lanes), "<u8").astype(np.uint64)
    words = np.frombuffer(cursor.bytes(cursor.left), "<u4").astype(np.uint32)
    return Payload(sizes, stored, seeded, heads, words)


def _packed(value: int) -> bytes:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value} is not a whole number of 64 bits")
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


@dataclass
class _Cursor:
    """Reads data from the beginning. Both methods raise ValueError if the data end before."""

    data: bytes
    at: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def bytes(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise ValueError("it ends within a field")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        value = 0
        for place in range(10):
            digit = self.bytes(1)[0]
            value |= (digit & 127) << 7 * place
            if digit < 128:
                return value
        raise ValueError("a number is too long")
