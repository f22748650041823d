# SPDX-License-Identifier: Apache-2.0
"""Compressed files with right checksums of whatever is in them, as someone who means harm would make them."""

import hashlib
import shutil
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from vdmkit_codec.codec import write_images
from vdmkit_codec.container import Chunk, inspect, open_reader
from vdmkit_codec.container._chunk import keyed_digest, pack_chunk, place_after
from vdmkit_codec.container._head import make_head
from vdmkit_codec.container._small import pack_small
from vdmkit_codec.container._tail import pack_tail

from vdmkit.errors import VdmkitError

HEADER = {"profile": "portable", "T": 10, "shape": [8, 8, 1], "gamma": [-8.0, 0.1, 5.0], "group": 4, "chunk": 4}
SECTIONS = (b"VDMN", b"VDMI")


def chunk(payload: bytes = bytes(range(40))) -> Chunk:
    return Chunk(2, payload, hashlib.sha256(payload).digest())


def large() -> bytes:
    """A file in the form of large ones: chunks with headers of their own, names, index, second head and footer."""
    head, entries, parts = make_head(HEADER), [], []
    for payload in (bytes(range(40)), bytes(range(40, 90))):
        before, entry = pack_chunk(
            chunk(payload), place_after(entries[-1] if entries else None, len(head.raw)), head.file_id
        )
        entries.append(entry)
        parts += [before, payload]
    return b"".join([head.raw, *parts, pack_tail(head, entries, ["a.png", "b.png", "c/d.png", "e.png"])])


def resealed(data: bytes) -> bytes:
    """Gives head, chunks, names, index and footer right checksums, as far as their lengths can be followed."""
    end = 16 + int.from_bytes(data[8:12], "little")
    if not 16 <= end <= len(data) - 32:
        return data
    head = data[: end - 4] + zlib.crc32(data[: end - 4]).to_bytes(4, "little")
    key, parts, digests, at = hashlib.sha256(head).digest(), [head], [], end
    while data[at : at + 4] == b"VDMC" and at + 72 <= len(data):
        size = int.from_bytes(data[at + 24 : at + 28], "little")
        bound, payload = data[at : at + 4] + key[:4] + data[at + 8 : at + 60], data[at + 72 : at + 72 + size]
        digests.append(keyed_digest(key, [bound, payload]))
        parts += [bound, digests[-1], zlib.crc32(bound + digests[-1]).to_bytes(4, "little"), payload]
        at += 72 + size
    named = bytes(8)
    while data[at : at + 4] in SECTIONS:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        frame, body = data[at : at + 8], data[at + 8 : at + 8 + size]
        if frame[:4] == b"VDMI":
            rows = [body[start : start + 8] for start in range(8, len(body) - 8, 16)]
            known = [*digests, *[bytes(8)] * len(rows)]
            body = named + b"".join(row + digest for row, digest in zip(rows, known, strict=False))
        named = keyed_digest(key, [frame, body])
        parts += [frame, body, named]
        at += 16 + size
    fields = data[-32:-12]
    return b"".join([*parts, head, fields, keyed_digest(key, [fields]), b"ZMDV"])


def named(data: bytes) -> bytes:
    """A small file whose names are these bytes of JSON."""
    head = make_head(HEADER, small=True)
    (first, *_), whole = [chunk()], pack_small(HEADER, [chunk()], None)
    after = len(head.raw)
    listed = whole[after : after + 1 + 2 + 16 + 8]  # one chunk: images, bytes, SHA-256, digest
    packed = zlib.compress(data, 9)
    size = len(packed)
    front = listed + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + packed
    return head.raw + front + keyed_digest(head.file_id, [front]) + first.payload


def read_and_write(path: Path) -> None:
    """Reads what is in a file, and writes images by its names, as decompression does."""
    out = path.parent / "out"
    for salvage in (False, True):
        with suppress(VdmkitError), open_reader(path, salvage=salvage) as reader:
            for number in range(len(reader.chunks)):
                with suppress(VdmkitError):
                    reader.payload(number)
            count = min(reader.images, 8)
            write_images(iter([(0, np.zeros((count, 8, 8, 1), np.uint8))]), out, (8, 8, 1), reader.names)
        shutil.rmtree(out, ignore_errors=True)
        with suppress(VdmkitError):
            str(inspect(path, salvage=salvage))
