# SPDX-License-Identifier: Apache-2.0
"""Compressed files with correct checksums for any contents, as an attacker would make them."""

import random
import shutil
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from vdmkit_codec.container import DIGEST, Chunk, open_reader, pack_file
from vdmkit_codec.decoding import write_images
from vdmkit_codec.inspection import inspect

from vdmkit.errors import VdmkitError

HEADER = {"profile": "portable", "T": 10, "shape": [8, 8, 1], "gamma": [-8.0, 0.1, 5.0], "group": 4, "chunk": 4}
START, FRAME = 5, 10  # bytes of magic and version; of the number of images, the length and the CRC-32 of a record


def chunk(payload: bytes = bytes(range(40))) -> Chunk:
    return Chunk(2, payload, random.Random(0).randbytes(DIGEST))


def large() -> bytes:
    """Returns a file of two chunks with names."""
    return pack_file(HEADER, [chunk(), chunk(bytes(range(40, 90)))], ["a.png", "b.png", "c/d.png", "e.png"])


def framed(context: bytes, fields: bytes, body: bytes) -> bytes:
    return fields + struct.pack("<I", zlib.crc32(context + fields + body))


def resealed(data: bytes) -> bytes:
    """Computes correct checksums for all records, as far as their lengths can be followed."""
    at, number, head, frames, parts = START, 0, b"", b"", [data[:START]]
    while at + FRAME <= len(data):
        fields = data[at : at + 6]
        images, length = struct.unpack("<HI", fields)
        body = data[at + FRAME : at + FRAME + length]
        context = (head + number.to_bytes(8) if images else head + frames) if head else data[:START]
        frame = framed(context, fields, body)
        parts += [frame, body]
        if head:
            frames, number = frames + frame, number + 1
        else:
            head = b"".join(parts)
        at += FRAME + length
        if number and not images:
            break
    return b"".join([*parts, data[at:]])


def named(data: bytes) -> bytes:
    """Returns a file of one chunk whose names are these bytes of JSON."""
    whole = pack_file(HEADER, [chunk()])
    with open_reader(whole) as reader:
        (entry,) = reader.chunks
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    end = framed(whole[: entry.offset] + entry.frame, struct.pack("<HI", 0, len(body)), body)
    return whole[: entry.end] + end + body


def read_and_write(path: Path) -> None:
    """Reads a file and writes its images under their names, as decompression does."""
    out = path.parent / "out"
    with suppress(VdmkitError), open_reader(path) as reader:
        for number in range(len(reader.chunks)):
            with suppress(VdmkitError):
                reader.payload(number)
        count = min(reader.images, 8)
        write_images(iter([(0, np.zeros((count, 8, 8, 1), np.uint8))]), out, (8, 8, 1), reader.names)
    shutil.rmtree(out, ignore_errors=True)
    with suppress(VdmkitError):
        str(inspect(path))
