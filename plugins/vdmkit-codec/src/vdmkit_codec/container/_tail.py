# SPDX-License-Identifier: Apache-2.0
"""The parts after the chunks of a .vdmz file: names, index, a second copy of the head, and a footer."""

import json
import struct
import zlib
from itertools import accumulate

from vdmkit_codec.container._chunk import HEADER_BYTES, Entry, keyed_digest
from vdmkit_codec.container._footer import pack_footer
from vdmkit_codec.container._head import Head, canonical_json, decompressed
from vdmkit_codec.container._source import Source

NAMES, INDEX = b"VDMN", b"VDMI"
_SECTION = struct.Struct("<4sI")  # tag, bytes of the body; the body and 8 bytes of keyed digest follow
_LISTED = struct.Struct("<II8s")  # images, bytes of payload, digest of the chunk
_NO_NAMES = bytes(8)
_MAX_SECTION = 1 << 28  # bytes, compressed or not
_FEW_NAMES, _MOST_RATIO = 1 << 16, 64  # bytes of names that compress well; how well larger ones may
_BETWEEN = b'","'  # names in canonical JSON, where quotes within names are escaped
_MAX_NAME = 1 << 12  # bytes of JSON for a name, on average


def pack_tail(head: Head, entries: list[Entry], names: list[str] | None) -> bytes:
    """Returns the bytes after the chunks.

    Raises:
        ValueError: The number of names differs from that of images, or is larger than readers accept.
    """
    images = entries[-1].next_image if entries else 0
    named = b"" if names is None else _pack_names(names, images, head.file_id)
    body = [_LISTED.pack(entry.images, entry.length - HEADER_BYTES, entry.digest) for entry in entries]
    index = _section(INDEX, (named[-8:] or _NO_NAMES) + b"".join(body), head.file_id)
    chunks_end = entries[-1].end if entries else len(head.raw)
    footer = pack_footer((chunks_end, len(named), len(index), len(head.raw)), head.file_id)
    return b"".join([named, index, head.raw, footer])


def read_section(source: Source, tag: bytes, start: int, file_id: bytes) -> bytes | None:
    """Returns the body and the digest of the section at `start`, or None if it is damaged or missing."""
    if start + _SECTION.size > source.size:
        return None
    frame = source.read(start, _SECTION.size)
    found, length = _SECTION.unpack(frame)
    if found != tag or length > _MAX_SECTION or start + _SECTION.size + length + 8 > source.size:
        return None
    data = source.read(start + _SECTION.size, length + 8)
    return data if keyed_digest(file_id, [frame, data[:-8]]) == data[-8:] else None


def number_of_chunks(section: bytes) -> int:
    """Returns the number of chunks that an index lists."""
    return (len(section) - 16) // _LISTED.size


def index_of(section: bytes, head: Head) -> tuple[list[Entry], bytes | None]:
    """Returns the entries of an index, and the digest of the names, or None without names."""
    names, body = section[:8], section[8:-8]
    rows = list(_LISTED.iter_unpack(body[: len(body) // _LISTED.size * _LISTED.size]))
    firsts = accumulate((images for images, _, _ in rows), initial=0)
    offsets = accumulate((HEADER_BYTES + size for _, size, _ in rows), initial=len(head.raw))
    entries = [
        Entry(ordinal, first, images, offset, HEADER_BYTES + size, digest)
        for ordinal, ((images, size, digest), first, offset) in enumerate(zip(rows, firsts, offsets, strict=False))
    ]
    return entries, None if names == _NO_NAMES else names


def names_of(section: bytes, images: int | None) -> list[str]:
    """Returns the names in a section.

    Args:
        section: The section.
        images: Expected number of names; None if it is unknown.

    Raises:
        ValueError: The section holds something else.
    """
    return names_in(section[:-8], images)


def names_in(data: bytes, images: int | None) -> list[str]:
    """Returns the names in compressed JSON, as `names_of`.

    They are counted before they are made, because empty names, or other JSON, would take much memory.
    """
    text = decompressed(data, min(_most_names(images), _FEW_NAMES + _MOST_RATIO * len(data)))
    if text == b"[]" and not images:
        return []
    if not (text.startswith(b'["') and text.endswith(b'"]')):
        raise ValueError("it is not a list of names")
    count = text.count(_BETWEEN) + 1
    if count > _most_of(data) or images not in (None, count):
        raise ValueError(f"it holds {count} names for {images} images, in {len(data)} bytes")
    return [json.loads(b'"' + name + b'"') for name in text[2:-2].split(_BETWEEN)]


def _most_of(data: bytes) -> int:
    """Returns the largest number of names in compressed JSON; different names take more than a byte each."""
    return _FEW_NAMES + len(data)


def _most_names(images: int | None) -> int:
    return _MAX_SECTION if images is None else min(_MAX_SECTION, images * _MAX_NAME + 2)


def _section(tag: bytes, body: bytes, file_id: bytes) -> bytes:
    if len(body) > _MAX_SECTION:
        raise ValueError(f"a section of {len(body)} bytes; at most {_MAX_SECTION} are read")
    frame = _SECTION.pack(tag, len(body))
    return frame + body + keyed_digest(file_id, [frame, body])


def pack_names(text: bytes) -> bytes:
    """Compresses the JSON of names, but not so far that readers refuse it."""
    data = zlib.compress(text, 9)
    fits = len(text) <= _FEW_NAMES + _MOST_RATIO * len(data) and text.count(_BETWEEN) < _most_of(data)
    return data if fits else zlib.compress(text, 0)


def _pack_names(names: list[str], images: int, file_id: bytes) -> bytes:
    if len(names) != images:
        raise ValueError(f"{len(names)} names for {images} images")
    text = canonical_json(names)
    if len(text) > _most_names(images):
        raise ValueError(f"names of {len(text)} bytes; at most {_most_names(images)} are read")
    return _section(NAMES, pack_names(text), file_id)
