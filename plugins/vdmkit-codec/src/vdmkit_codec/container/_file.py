# SPDX-License-Identifier: Apache-2.0
"""Whole files in memory, and their sizes."""

from collections.abc import Sequence
from typing import Any

from vdmkit_codec.container._chunk import HEADER_BYTES, Chunk, Entry, pack_chunk, place_after
from vdmkit_codec.container._head import make_head
from vdmkit_codec.container._small import SMALL, pack_small
from vdmkit_codec.container._tail import pack_tail


def pack_file(header: dict[str, Any], chunks: Sequence[Chunk], names: list[str] | None = None) -> bytes:
    """Returns a file of these chunks, as `open_writer` writes it.

    Raises:
        ValueError: The header is not JSON, or the number of names differs from that of images.
    """
    if sum(len(chunk.payload) for chunk in chunks) <= SMALL:
        small = pack_small(header, chunks, names)
        if len(small) <= SMALL:
            return small
    head, entries, parts = make_head(header), list[Entry](), list[bytes]()
    for chunk in chunks:
        place = place_after(entries[-1] if entries else None, len(head.raw))
        before, entry = pack_chunk(chunk, place, head.file_id)
        entries.append(entry)
        parts += [before, chunk.payload]
    return b"".join([head.raw, *parts, pack_tail(head, entries, names)])


def size_of_file(header: dict[str, Any], chunks: Sequence[tuple[int, int]], names: list[str] | None) -> int:
    """Returns the number of bytes in a file, by building everything but its payloads.

    Args:
        header: The header, a JSON object.
        chunks: Number of images in each chunk, and of bytes in its payload.
        names: A name for each image, or None.

    Raises:
        ValueError: The header is not JSON, or the number of names differs from that of images.
    """
    payloads = sum(size for _, size in chunks)
    if payloads <= SMALL:
        return len(pack_file(header, [Chunk(images, bytes(size), bytes(32)) for images, size in chunks], names))
    head, entries = make_head(header), list[Entry]()
    for images, _ in chunks:
        place = place_after(entries[-1] if entries else None, len(head.raw))
        entries.append(pack_chunk(Chunk(images, b"", bytes(32)), place, head.file_id)[1])
    return len(head.raw) + HEADER_BYTES * len(entries) + payloads + len(pack_tail(head, entries, names))
