# SPDX-License-Identifier: Apache-2.0
"""Chunks of a .vdmz file: images that are coded together, and what says that they are whole and in their place."""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vdmkit.container._source import Source

TAG = b"VDMC"
# Tag, begin of the file's id, ordinal, first image, images, bytes of payload, SHA-256 of the pixels.
_BOUND = struct.Struct("<4s4sIQII32s")
_CHECK = struct.Struct("<8sI")  # digest of the above and the payload, keyed with the file's id; CRC-32 of all before it
HEADER_BYTES = _BOUND.size + _CHECK.size
_MAX_PAYLOAD = 1 << 30  # a chunk is held in memory whole
_MAX_IMAGES = (1 << 32) - 1


@dataclass(frozen=True)
class Chunk:
    """Images that are coded together.

    Attributes:
        images: How many; at least one.
        payload: What the entropy coder made of them, at most 2^30 bytes.
        pixels_sha256: 32 bytes, SHA-256 of their uint8 pixels (images, H, W, C) in C order.
    """

    images: int
    payload: bytes
    pixels_sha256: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.images <= _MAX_IMAGES or len(self.pixels_sha256) != 32:
            raise ValueError(f"a chunk of {self.images} images with {len(self.pixels_sha256)} bytes of SHA-256")
        if len(self.payload) > _MAX_PAYLOAD:
            raise ValueError(f"a chunk of {len(self.payload)} bytes; at most {_MAX_PAYLOAD} are read")


@dataclass(frozen=True)
class Entry:
    """Where a chunk is.

    Attributes:
        ordinal: Its number in the file, from 0.
        first: Index of its first image in the file, from 0.
        images: How many it holds.
        offset: Where it begins in the file, in bytes.
        length: Its bytes in the file, 72 bytes of its own header included.
        digest: Its 8-byte checksum.
    """

    ordinal: int
    first: int
    images: int
    offset: int
    length: int
    digest: bytes

    @property
    def end(self) -> int:
        """Where the next chunk begins, in bytes."""
        return self.offset + self.length

    @property
    def next_image(self) -> int:
        """Index of the image after its last."""
        return self.first + self.images

    @property
    def title(self) -> str:
        """What a message calls it."""
        return f"chunk {self.ordinal} (images {self.first} to {self.next_image - 1})"

    @property
    def listed(self) -> tuple[int, int, int, int, bytes]:
        """All but its place."""
        return self.ordinal, self.first, self.images, self.length, self.digest


def place_after(last: Entry | None, head_bytes: int) -> tuple[int, int, int]:
    """Ordinal, first image and offset of the chunk after `last`, or of the first one."""
    return (last.ordinal + 1, last.next_image, last.end) if last else (0, 0, head_bytes)


def pack_chunk(chunk: Chunk, place: tuple[int, int, int], file_id: bytes) -> tuple[bytes, Entry]:
    """The bytes before the payload, and the entry, of a chunk at its place (ordinal, first image, offset)."""
    ordinal, first, offset = place
    size = len(chunk.payload)
    bound = _BOUND.pack(TAG, file_id[:4], ordinal, first, chunk.images, size, chunk.pixels_sha256)
    digest = keyed_digest(file_id, [bound, chunk.payload])
    header = bound + digest
    header += zlib.crc32(header).to_bytes(4, "little")
    return header, Entry(ordinal, first, chunk.images, offset, HEADER_BYTES + size, digest)


def read_entry(source: Source, offset: int, file_id: bytes) -> Entry | None:
    """What the chunk at `offset` says of itself, its payload unread; None if no undamaged header is there.

    Raises:
        CodecError: It is a chunk of another file, or the header of the file was edited.
    """
    if offset + HEADER_BYTES > source.size:
        return None
    header = source.read(offset, HEADER_BYTES)
    tag, owner, ordinal, first, images, size, _ = _BOUND.unpack_from(header)
    digest, crc = _CHECK.unpack_from(header, _BOUND.size)
    if tag != TAG or crc != zlib.crc32(header[:-4]) or not images or size > _MAX_PAYLOAD:
        return None
    if owner != file_id[:4]:
        raise source.fault(
            f"the chunk at byte {offset} (images {first} to {first + images - 1}) is of another file, "
            "or the header was edited: its checksum is that of another header"
        )
    return Entry(ordinal, first, images, offset, HEADER_BYTES + size, digest)


def read_chunk(source: Source, entry: Entry, file_id: bytes) -> Chunk | None:
    """The chunk of an entry that `read_entry` gave, or None if it is damaged or cut short."""
    if entry.end > source.size:
        return None
    bound = source.read(entry.offset, _BOUND.size)
    payload = source.read(entry.offset + HEADER_BYTES, entry.length - HEADER_BYTES)
    if keyed_digest(file_id, [bound, payload]) != entry.digest:
        return None
    return Chunk(entry.images, payload, _BOUND.unpack(bound)[-1])


def is_whole(source: Source, entry: Entry, file_id: bytes) -> bool:
    """Whether `read_chunk` would give it; holds a mebibyte of it at a time."""
    if entry.end > source.size:
        return False
    payload = source.pieces(entry.offset + HEADER_BYTES, entry.length - HEADER_BYTES)
    bound = source.read(entry.offset, _BOUND.size)
    return keyed_digest(file_id, _chain(bound, payload)) == entry.digest


def walk(source: Source, start: int, file_id: bytes) -> Iterator[Entry]:
    """What the chunks from `start` on say of themselves, in the order of the file, until something else follows.

    Raises:
        CodecError: One of them is of another file, or is not the one that comes next.
    """
    last = None
    while entry := read_entry(source, last.end if last else start, file_id):
        ordinal, first, _ = place_after(last, start)
        if (entry.ordinal, entry.first) != (ordinal, first):
            raise source.fault(
                f"chunks are out of order: chunk {entry.ordinal} (its first image is {entry.first}) where chunk "
                f"{ordinal} (image {first}) belongs; some were exchanged, taken out or doubled"
            )
        yield entry
        last = entry


def keyed_digest(file_id: bytes, pieces: Iterable[bytes]) -> bytes:
    """8 bytes of SHA-256 of the file's id and the pieces; a CRC-32 alone would miss one damage in 2^32."""
    digest = hashlib.sha256(file_id)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()[:8]


def _chain(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others
