# SPDX-License-Identifier: Apache-2.0
"""Chunks of a .vdmz file: images that are coded together, with checksums of their contents and position."""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vdmkit_codec.container._source import Source

TAG = b"VDMC"
# Tag, begin of the file's id, ordinal, first image, images, bytes of payload, SHA-256 of the pixels.
_BOUND = struct.Struct("<4s4sIQII32s")
_CHECK = struct.Struct("<8sI")  # digest of these fields and the payload, keyed with the file's id; CRC-32 of the header
HEADER_BYTES = _BOUND.size + _CHECK.size
_MAX_PAYLOAD = 1 << 30  # a chunk is held in memory
_MAX_IMAGES = (1 << 32) - 1


@dataclass(frozen=True)
class Chunk:
    """Images that are coded together.

    Attributes:
        images: Number of images, at least one.
        payload: The coded images, at most 2^30 bytes.
        pixels_sha256: SHA-256 of their uint8 pixels (images, H, W, C) in C order; of a small file its first 16 bytes.
    """

    images: int
    payload: bytes
    pixels_sha256: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.images <= _MAX_IMAGES or len(self.pixels_sha256) not in (16, 32):
            raise ValueError(f"a chunk of {self.images} images with {len(self.pixels_sha256)} bytes of SHA-256")
        if len(self.payload) > _MAX_PAYLOAD:
            raise ValueError(f"a chunk of {len(self.payload)} bytes; at most {_MAX_PAYLOAD} are read")


@dataclass(frozen=True)
class Entry:
    """The position of a chunk in the file.

    Attributes:
        ordinal: Number of the chunk, from 0.
        first: Index of its first image in the file, from 0.
        images: Number of its images.
        offset: Its first byte in the file.
        length: Its length in bytes, with its own header of 72 bytes if it has one.
        digest: Its 8-byte checksum.
        pixels: SHA-256 of its pixels, if it is listed.
    """

    ordinal: int
    first: int
    images: int
    offset: int
    length: int
    digest: bytes
    pixels: bytes = b""

    @property
    def end(self) -> int:
        """Returns the offset of the next chunk in bytes."""
        return self.offset + self.length

    @property
    def next_image(self) -> int:
        """Returns the index of the image after its last."""
        return self.first + self.images

    @property
    def title(self) -> str:
        """Returns the chunk's name in messages."""
        return f"chunk {self.ordinal} (images {self.first} to {self.next_image - 1})"

    @property
    def listed(self) -> tuple[int, int, int, int, bytes]:
        """Returns the fields that an index lists, all but the position."""
        return self.ordinal, self.first, self.images, self.length, self.digest


def place_after(last: Entry | None, head_bytes: int) -> tuple[int, int, int]:
    """Returns ordinal, first image and offset of the chunk after `last`, or of the first chunk."""
    return (last.ordinal + 1, last.next_image, last.end) if last else (0, 0, head_bytes)


def pack_chunk(chunk: Chunk, place: tuple[int, int, int], file_id: bytes) -> tuple[bytes, Entry]:
    """Returns the bytes before the payload, and the entry, of a chunk at its place (ordinal, first image, offset)."""
    ordinal, first, offset = place
    size = len(chunk.payload)
    bound = _BOUND.pack(TAG, file_id[:4], ordinal, first, chunk.images, size, chunk.pixels_sha256)
    digest = keyed_digest(file_id, [bound, chunk.payload])
    header = bound + digest
    header += zlib.crc32(header).to_bytes(4, "little")
    return header, Entry(ordinal, first, chunk.images, offset, HEADER_BYTES + size, digest)


def read_entry(source: Source, offset: int, file_id: bytes) -> Entry | None:
    """Reads the header of the chunk at `offset`; returns None if there is no undamaged header.

    Raises:
        CodecError: The chunk belongs to another file, or the header of the file was edited.
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
    """Reads the chunk of an entry; returns None if it is damaged or truncated."""
    if entry.end > source.size:
        return None
    bound = source.read(entry.offset, _BOUND.size)
    payload = source.read(entry.offset + HEADER_BYTES, entry.length - HEADER_BYTES)
    if keyed_digest(file_id, [bound, payload]) != entry.digest:
        return None
    return Chunk(entry.images, payload, _BOUND.unpack(bound)[-1])


def is_whole(source: Source, entry: Entry, file_id: bytes) -> bool:
    """Returns whether a chunk is intact, reading a mebibyte at a time."""
    if entry.end > source.size:
        return False
    payload = source.pieces(entry.offset + HEADER_BYTES, entry.length - HEADER_BYTES)
    bound = source.read(entry.offset, _BOUND.size)
    return keyed_digest(file_id, _chain(bound, payload)) == entry.digest


def walk(source: Source, start: int, file_id: bytes) -> Iterator[Entry]:
    """Yields the entries of the chunks from `start` on, in the order of the file, until something else follows.

    Raises:
        CodecError: A chunk belongs to another file, or is not the next one.
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
    """Returns 8 bytes of SHA-256 of the file's id and the pieces; a CRC-32 alone would miss one error in 2^32."""
    digest = hashlib.sha256(file_id)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()[:8]


def _chain(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others
