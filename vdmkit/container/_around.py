# SPDX-License-Identifier: Apache-2.0
"""The bytes of a file that hold no image: all but the payloads of its chunks."""

from collections.abc import Sequence
from typing import Any

from vdmkit.container._chunk import HEADER_BYTES, Chunk, Entry, pack_chunk, place_after
from vdmkit.container._head import make_head
from vdmkit.container._tail import pack_tail


def bytes_around(header: dict[str, Any], images: Sequence[int], names: list[str] | None) -> int:
    """Returns how many bytes a file has besides its payloads, by building them; none of their lengths depends on those.

    Args:
        header: The JSON object that the file is written with.
        images: How many each chunk holds.
        names: One for each image, or None.

    Raises:
        ValueError: The header is not JSON, or there is not one name for each image.
    """
    head, entries = make_head(header), list[Entry]()
    for count in images:
        place = place_after(entries[-1] if entries else None, len(head.raw))
        entries.append(pack_chunk(Chunk(count, b"", bytes(32)), place, head.file_id)[1])
    return len(head.raw) + HEADER_BYTES * len(entries) + len(pack_tail(head, entries, names))
