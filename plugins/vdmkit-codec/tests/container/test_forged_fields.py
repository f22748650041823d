# SPDX-License-Identifier: Apache-2.0
"""Every number of the container changed by an enemy who makes all checksums anew: refused, at once, or no change."""

import base64
import hashlib
import os
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vdmkit_codec.container import open_reader
from vdmkit_codec.container._chunk import keyed_digest
from vdmkit_codec.container._head import canonical_json
from vdmkit_codec.container._varint import pack_unsigned

from vdmkit.errors import CodecError

MOST_SECONDS, MOST_BYTES = 1, 200e6
NUMBERS = [0, 10**6, 2**32 - 1, 2**64 - 1]


@dataclass
class Fields:
    """The numbers of a file by their names, one of which may be changed."""

    changed: dict[str, int] = field(default_factory=dict)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __call__(self, name: str, value: int, size: int) -> bytes:
        """Returns a number of so many bytes, or of as many as it needs for 0."""
        self.seen[name] = (value, size)
        value = self.changed.get(name, value)
        return value.to_bytes(size, "little") if size else pack_unsigned(value)


def head_of(vdmz, number: Fields, flags: int) -> bytes:
    text = zlib.compress(canonical_json(vdmz.header), 9)
    head = (
        b"VDMZ" + number("version", 2, 2) + number("flags", flags, 2) + number("length of header", len(text), 4) + text
    )
    return head + struct.pack("<I", zlib.crc32(head))


def large(vdmz, number: Fields, names: bytes | None = None, listed: bytes = b"") -> bytes:
    """A file with an index, which may list more: see `vdmkit_codec.container`."""
    head = head_of(vdmz, number, 0)
    file_id, first, chunks, rows = hashlib.sha256(head).digest(), 0, b"", b""
    for i, one in enumerate(vdmz.chunks):
        bound = b"VDMC" + number(f"owner of chunk {i}", int.from_bytes(file_id[:4], "little"), 4)
        bound += number(f"ordinal {i}", i, 4) + number(f"first image of chunk {i}", first, 8)
        bound += number(f"images of chunk {i}", one.images, 4) + number(f"bytes of chunk {i}", len(one.payload), 4)
        bound += one.pixels_sha256
        bound += keyed_digest(file_id, [bound, one.payload])
        chunks += bound + struct.pack("<I", zlib.crc32(bound)) + one.payload
        rows += number(f"listed images {i}", one.images, 4) + number(f"listed bytes {i}", len(one.payload), 4)
        rows += bound[-8:]
        first += one.images
    text = names or zlib.compress(canonical_json(vdmz.names), 9)
    frame = b"VDMN" + number("length of names", len(text), 4)
    named = frame + text + keyed_digest(file_id, [frame, text])
    body = named[-8:] + rows + listed
    frame = b"VDMI" + number("length of index", len(body), 4)
    index = frame + body + keyed_digest(file_id, [frame, body])
    footer = number("end of chunks", len(head) + len(chunks), 8) + number("bytes of names", len(named), 4)
    footer += number("bytes of index", len(index), 4) + number("bytes of head", len(head), 4)
    return head + chunks + named + index + head + footer + keyed_digest(file_id, [footer]) + b"ZMDV"


def small(vdmz, number: Fields) -> bytes:
    """A file with one head that lists its chunks."""
    head = head_of(vdmz, number, 2)
    file_id = hashlib.sha256(head).digest()
    front = number("number of chunks", len(vdmz.chunks), 0)
    for i, one in enumerate(vdmz.chunks):
        front += number(f"images of chunk {i}", one.images, 0) + number(f"bytes of chunk {i}", len(one.payload), 0)
        pixels = one.pixels_sha256[:16]
        front += pixels + keyed_digest(file_id, [pack_unsigned(i), pixels, one.payload])
    text = zlib.compress(canonical_json(vdmz.names), 9)
    front += number("length of names", len(text), 0) + text
    return b"".join([head, front, keyed_digest(file_id, [front]), *(one.payload for one in vdmz.chunks)])


def contents(data: bytes | Path, salvage: bool = False) -> dict[int, tuple]:
    """The chunks of a file by their first image, and its names; a chunk that is damaged is left out by `salvage`."""
    with open_reader(data, salvage=salvage) as reader:
        found: dict[int, tuple] = {-1: tuple(reader.names or [])}
        for i, entry in enumerate(reader.chunks):
            with suppress(CodecError) if salvage else nullcontext():
                found[entry.first] = (entry.images, reader.chunk(i).payload)
        return found


@pytest.fixture
def at_once() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """`at_once(action)`: what it returns, or None if it refuses; in either case with little time and memory."""

    def run(action: Callable[[], Any]) -> Any:
        tracemalloc.reset_peak()
        (before, _), start, result = tracemalloc.get_traced_memory(), time.process_time(), None
        with suppress(CodecError):
            result = action()
        assert time.process_time() - start < MOST_SECONDS
        assert tracemalloc.get_traced_memory()[1] - before < MOST_BYTES
        return result

    tracemalloc.start()
    yield run
    tracemalloc.stop()


@pytest.mark.parametrize("form", [small, large])
def test_forged_fields(vdmz, at_once, form) -> None:
    """False if a number that the checksums call right were believed: a traceback, other images, or their memory."""
    vdmz = SimpleNamespace(header=vdmz.header, chunks=vdmz.chunks[:2], names=vdmz.names[:4])
    fields, files = Fields(), 0
    expected = contents(form(vdmz, fields))
    assert len(expected) == 3
    for name, (value, size) in fields.seen.items():
        for other in {value + 1, value - 1, *NUMBERS} - {value}:
            if not 0 <= other < 1 << (8 * size or 64):
                continue
            data, files = form(vdmz, Fields({name: other})), files + 1
            assert at_once(lambda data=data: contents(data)) in (None, expected), (name, other)
            at_once(lambda data=data: contents(data, salvage=True))
    assert files > 40


EMPTY = {"empty names": b'"",', "lists": b"[],", "nested": b"["}


@pytest.mark.parametrize("what", EMPTY)
def test_names_that_compress_well(vdmz, at_once, what) -> None:
    """False if some hundred kilobytes of names, for as many images as a chunk claims, took gigabytes."""
    noise = base64.b64encode(random.Random(0).randbytes(300_000))
    text = zlib.compress(b'["' + noise + b'",' + EMPTY[what] * 6_000_000 + b'""]', 9)
    claimed = Fields({"images of chunk 0": 2**32 - 1, "listed images 0": 2**32 - 1})
    data = large(vdmz, claimed, names=text)
    assert at_once(lambda: contents(data)) is None
    assert at_once(lambda: contents(data, salvage=True))[-1] == ()


def test_an_index_of_more_chunks_than_there_is_room_for(vdmz, at_once) -> None:
    """False if an index of 16 bytes a chunk took more memory than the chunks would."""
    data = large(vdmz, Fields(), listed=bytes(16) * 500_000)
    assert at_once(lambda: contents(data)) is None


@pytest.mark.parametrize("what", ["chunks", "heads"])
def test_salvage_of_a_file_full_of_headers(vdmz, tmp_path, monkeypatch, what) -> None:
    """False if what a header claims were read once for each of 1,820 headers that overlap, 119 MB here."""
    head, size, read = head_of(vdmz, Fields(), 0), 72 * 1820, [0]
    file_id, data = hashlib.sha256(head).digest(), head if what == "chunks" else b"?"
    for i in range(1820):
        bound = struct.pack("<4s4sIQII32s", b"VDMC", file_id[:4], i, i, 1, size - 72 * (i + 1), bytes(32)) + bytes(8)
        chunk = bound + struct.pack("<I", zlib.crc32(bound))
        data += chunk if what == "chunks" else struct.pack("<4sHHI", b"VDMZ", 2, 0, size - 72 * (i + 1)).ljust(72)
    (tmp_path / "a.vdmz").write_bytes(data)
    pread = os.pread
    monkeypatch.setattr("os.pread", lambda at, count, start: read.append(count) or pread(at, count, start))
    with suppress(CodecError) if what == "heads" else nullcontext():
        assert contents(tmp_path / "a.vdmz", salvage=True) == {-1: ()}
    assert sum(read) < 20e6
