# SPDX-License-Identifier: Apache-2.0
"""The payload of a chunk: the sizes of the groups of images, and the stack."""

import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt32, UInt64

from vdmkit.errors import CodecError

_FIXED = struct.Struct("<IHHII")  # groups, lanes, levels of stored images, initial words, words


@dataclass(frozen=True)
class Payload:
    """The payload of a chunk.

    Args:
        groups: Number of images in each group, in the order of coding.
        stored: Whether each image is stored uncompressed.
        stored_levels: Number of levels of the stored images.
        seeded: Number of random words that the empty stack was filled with, which remain after decoding. For a few
            small images it may exceed the number of `words`, because the heads hold some of them.
        heads: Heads of the stack.
        words: Words of the stack's tail.
    """

    groups: tuple[int, ...]
    stored: Bool[np.ndarray, " n"]
    stored_levels: int
    seeded: int
    heads: UInt64[np.ndarray, " lanes"]
    words: UInt32[np.ndarray, " words"]

    @property
    def initial_bits(self) -> int:
        """Returns the initial bits of the stack: half of each head, and the random words."""
        return 32 * (len(self.heads) + self.seeded)

    def to_bytes(self) -> bytes:
        fixed = _FIXED.pack(len(self.groups), len(self.heads), self.stored_levels, self.seeded, len(self.words))
        sizes = np.asarray(self.groups, "<u2").tobytes()
        arrays = (self.heads.astype("<u8"), self.words.astype("<u4"))
        return fixed + sizes + np.packbits(self.stored).tobytes() + b"".join(array.tobytes() for array in arrays)


def payload_of(data: bytes, images: int) -> Payload:
    """Parses a payload. Raises CodecError if it is not a payload of this number of images."""
    if len(data) < _FIXED.size:
        raise CodecError("a chunk is too short")
    groups, lanes, levels, seeded, words = _FIXED.unpack_from(data)
    sizes = np.array([2 * groups, -(-images // 8), 8 * lanes, 4 * words])
    if _FIXED.size + int(sizes.sum()) != len(data) or not 1 <= levels <= 256 or not lanes:
        raise CodecError("a chunk's lengths do not fit it")
    ends = _FIXED.size + np.cumsum(sizes)
    parts = [data[end - size : end] for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]
    of_groups = tuple(int(size) for size in np.frombuffer(parts[0], "<u2"))
    stored = np.unpackbits(np.frombuffer(parts[1], np.uint8))[:images].astype(bool)
    if sum(of_groups) != images or 0 in of_groups:
        raise CodecError("a chunk's groups do not add up to its images")
    heads, tail = np.frombuffer(parts[2], "<u8").astype(np.uint64), np.frombuffer(parts[3], "<u4").astype(np.uint32)
    if (heads < 1 << 32).any():
        raise CodecError("a chunk's heads are outside of the range of a stack")
    return Payload(of_groups, stored, levels, seeded, heads, tail)
