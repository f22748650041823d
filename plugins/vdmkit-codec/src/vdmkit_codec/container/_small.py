# SPDX-License-Identifier: Apache-2.0
"""A file below a few kilobytes: one head, a front that lists all chunks, and their payloads."""

from collections.abc import Sequence
from typing import Any

from vdmkit_codec.container._chunk import Chunk, Entry, keyed_digest
from vdmkit_codec.container._contents import Contents
from vdmkit_codec.container._head import Head, canonical_json, make_head
from vdmkit_codec.container._source import Source
from vdmkit_codec.container._tail import names_in, pack_names
from vdmkit_codec.container._varint import Cursor, pack_unsigned

SMALL = 1 << 13  # bytes of the largest such file
_PIXELS = 16  # bytes of a chunk's SHA-256
_DIGEST = 8


def pack_small(header: dict[str, Any], chunks: Sequence[Chunk], names: list[str] | None) -> bytes:
    """Returns a whole file. Raises ValueError if the header is not JSON, or names and images differ in number."""
    head = make_head(header, small=True)
    images = sum(chunk.images for chunk in chunks)
    if names is not None and len(names) != images:
        raise ValueError(f"{len(names)} names for {images} images")
    named = b"" if names is None else pack_names(canonical_json(names))
    front = pack_unsigned(len(chunks))
    for number, chunk in enumerate(chunks):
        front += pack_unsigned(chunk.images) + pack_unsigned(len(chunk.payload)) + chunk.pixels_sha256[:_PIXELS]
        front += _digest(head, number, chunk.pixels_sha256[:_PIXELS], chunk.payload)
    front += pack_unsigned(len(named)) + named
    front += keyed_digest(head.file_id, [front])
    return b"".join([head.raw, front, *(chunk.payload for chunk in chunks)])


def read_small(source: Source, head: Head, *, salvage: bool) -> Contents:
    """Returns the contents of a small file. With `salvage` they list the damage.

    Raises:
        CodecError: the front is damaged; or, without `salvage`, the file has another size than is written there.
    """
    if source.size > SMALL:
        raise source.fault(f"has {source.size} bytes, and was written as a file of at most {SMALL}")
    cursor = Cursor(source.read(0, source.size), len(head.raw))
    listed, named = [], b""
    try:
        listed = [_listed(cursor) for _ in range(cursor.count())]
        named = cursor.bytes(cursor.count())
        digest = keyed_digest(head.file_id, [cursor.data[len(head.raw) : cursor.at]])
        whole = cursor.bytes(_DIGEST) == digest
    except ValueError:
        whole = False
    if not whole:
        raise source.fault("the list of its chunks is damaged")
    entries = _entries(listed, cursor.at)
    damaged = _damage(source, head, entries, cursor.at)
    if damaged and not salvage and not damaged[0].startswith("chunk"):
        raise source.fault(damaged[0])
    images = entries[-1].next_image if entries else 0
    try:
        return Contents(entries, images, names_in(named, images) if named else None, damaged if salvage else [])
    except ValueError as error:
        raise source.fault(f"its names cannot be read: {error}") from error


def read_small_chunk(source: Source, head: Head, entry: Entry) -> Chunk | None:
    """Returns the chunk of an entry, or None if it is damaged or truncated."""
    if entry.end > source.size:
        return None
    payload = source.read(entry.offset, entry.length)
    whole = _digest(head, entry.ordinal, entry.pixels, payload) == entry.digest
    return Chunk(entry.images, payload, entry.pixels) if whole else None


def _listed(cursor: Cursor) -> tuple[int, int, bytes, bytes]:
    found = cursor.unsigned(), cursor.unsigned(), cursor.bytes(_PIXELS), cursor.bytes(_DIGEST)
    if not 1 <= found[0] < 1 << 32 or found[1] > SMALL:
        raise ValueError("a chunk without images, or beyond the file")
    return found


def _entries(listed: list[tuple[int, int, bytes, bytes]], offset: int) -> list[Entry]:
    entries: list[Entry] = []
    first = 0
    for ordinal, (images, size, pixels, digest) in enumerate(listed):
        entries.append(Entry(ordinal, first, images, offset, size, digest, pixels))
        first, offset = first + images, offset + size
    return entries


def _damage(source: Source, head: Head, entries: list[Entry], front: int) -> list[str]:
    """Returns what is wrong, first of the file's size."""
    end = entries[-1].end if entries else front
    words = [f"{source.size - end} bytes follow its end"] if source.size > end else []
    words += [f"was cut short: {end} bytes are expected, {source.size} found"] if source.size < end else []
    broken = [entry for entry in entries if read_small_chunk(source, head, entry) is None]
    return words + [f"{entry.title} is damaged" for entry in broken]


def _digest(head: Head, number: int, pixels: bytes, payload: bytes) -> bytes:
    return keyed_digest(head.file_id, [pack_unsigned(number), pixels, payload])
