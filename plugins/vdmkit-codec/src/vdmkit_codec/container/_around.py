# SPDX-License-Identifier: Apache-2.0
"""The number of bytes in a file outside the payloads of its chunks."""

from collections.abc import Sequence
from typing import Any

from vdmkit_codec.container._chunk import HEADER_BYTES, Chunk, Entry, pack_chunk, place_after
from vdmkit_codec.container._head import make_head
from vdmkit_codec.container._tail import pack_tail


def bytes_around(header: dict[str, Any], images: Sequence[int], names: list[str] | None) -> int:
    """Returns the number of bytes in a file outside its payloads, by building them; it does not depend on the payloads.

    Args:
        header: The header, a JSON object.
        images: Number of images in each chunk.
        names: A name for each image, or None.

    Raises:
        ValueError: The header is not JSON, or the number of names differs from that of images.
    """
    head, entries = make_head(header), list[Entry]()
    for count in images:
        place = place_after(entries[-1] if entries else None, len(head.raw))
        entries.append(pack_chunk(Chunk(count, b"", bytes(32)), place, head.file_id)[1])
    return len(head.raw) + HEADER_BYTES * len(entries) + len(pack_tail(head, entries, names))
