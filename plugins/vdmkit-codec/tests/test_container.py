# SPDX-License-Identifier: Apache-2.0
"""The file format: what was written is read back; damaged, truncated or forged files are refused with the reason."""

import json
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from vdmkit_codec.container import Chunk, open_reader, open_writer, pack_file, size_of_file

from vdmkit.errors import CodecError

HEADER = {"profile": "portable", "T": 10, "shape": [8, 8, 1], "gamma": [-8.0, 0.1, 5.0], "seed": 3}
START, FRAME = 5, 10  # bytes of magic and version; of images, length and CRC-32 before the body of a record


def chunk(seed: int, images: int = 2, size: int = 20) -> Chunk:
    rng = random.Random(seed)
    return Chunk(images, rng.randbytes(size), rng.randbytes(8))


CHUNKS = [chunk(0, 1, 30), chunk(1, 3, 0), chunk(2, 2, 25), chunk(3, 4, 30)]
NAMES = [f'image {i} \u00e9\udcff","\\.png' for i in range(10)]  # with a byte that is not UTF-8, and JSON's separators


def contents(given: Path | bytes) -> tuple:
    """The header, all chunks and the names of a file."""
    with open_reader(given) as reader:
        return reader.header, [reader.chunk(i) for i in range(len(reader.chunks))], reader.names


def places(data: bytes) -> list[tuple[int, int]]:
    with open_reader(data) as reader:
        return [(entry.offset, entry.end) for entry in reader.chunks]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(scope="module")
def data() -> bytes:
    return pack_file(HEADER, CHUNKS, NAMES)


@pytest.mark.parametrize("named", [False, True], ids=["no names", "names"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_round_trip(tmp_path, count, named):
    """Header, chunks, their positions and names are read back, from a file and from the same bytes in memory."""
    chunks, path = CHUNKS[:count], tmp_path / "a.vdmz"
    images = sum(one.images for one in chunks)
    names = NAMES[:images] if named else None
    with open_writer(path, HEADER, resume=False) as writer:
        for one in chunks:
            writer.append(one)
        writer.finish(names)
    data = pack_file(HEADER, chunks, names)
    assert path.read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["a.vdmz"]
    for given in (path, str(path), data, bytearray(data), memoryview(data)):
        assert contents(given) == (HEADER, chunks, names)
    with open_reader(path) as reader:
        firsts = [sum(one.images for one in chunks[:i]) for i in range(count)]
        assert (reader.images, reader.bytes) == (images, len(data))
        assert [(entry.first, entry.images) for entry in reader.chunks] == [
            (first, one.images) for first, one in zip(firsts, chunks, strict=True)
        ]
    assert size_of_file(HEADER, [(one.images, len(one.payload)) for one in chunks], names) == len(data)


def test_threads_read_concurrently(tmp_path):
    """Concurrent reads of chunks do not disturb each other."""
    chunks = [chunk(i, 1, 10_000) for i in range(50)]
    (tmp_path / "a.vdmz").write_bytes(pack_file(HEADER, chunks))
    with open_reader(tmp_path / "a.vdmz") as reader, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(reader.chunk, range(50))) == chunks


def test_overhead_is_small():
    """Header, one chunk and the end take at most 38 bytes besides payload and deflated header."""
    header = zlib.compress(json.dumps(HEADER, sort_keys=True, separators=(",", ":")).encode(), 9, -15)
    assert len(pack_file(HEADER, [CHUNKS[0]])) <= START + 3 * FRAME + 8 + len(header) + len(CHUNKS[0].payload)


def test_every_truncation_is_refused(data):
    """A file that was cut off anywhere is not read as a whole one."""
    for size in range(len(data)):
        with pytest.raises(CodecError, match=r"cut short|not a \.vdmz file"):
            contents(data[:size])


@pytest.mark.parametrize("count", [0, 4])
def test_every_bit_flip_is_refused(count):
    """One wrong bit anywhere, in a file with or without chunks, raises CodecError when the whole file is read."""
    data = pack_file(HEADER, CHUNKS[:count], NAMES[: 10 if count else 0])
    for bit in range(8 * len(data)):
        with pytest.raises(CodecError):
            contents(flipped(data, bit))


def test_every_changed_byte_of_a_chunk_names_it(data):
    """Damage in the body of a chunk is reported for this chunk, and leaves all others readable."""
    for number, (start, end) in enumerate(places(data)):
        for at in range(start + FRAME, end):
            with open_reader(flipped(data, 8 * at)) as reader:
                for i in {0, 1, 2, 3} - {number}:
                    assert reader.chunk(i) == CHUNKS[i]
                with pytest.raises(
                    CodecError, match=rf"chunk {number} \(images .*\) is damaged or out of place: .*CRC"
                ):
                    reader.chunk(number)


@pytest.mark.parametrize("field", range(FRAME))
def test_damage_in_the_frame_of_a_chunk_names_it(data, field):
    """A wrong number of images, length or CRC-32 is reported for its chunk when the file is opened."""
    start, _ = places(data)[2]
    with (
        pytest.raises(CodecError, match=r"chunk 2 \(images 4 to .* is damaged|cut short after 2 chunks"),
        open_reader(flipped(data, 8 * (start + field))),
    ):
        pass


@pytest.mark.parametrize(
    "order", [[3, 1, 2, 0], [1, 0, 2, 3], [0, 2, 3], [1, 2, 3], [0, 1, 2], [0, 1, 1, 2, 3], [0, 1, 2, 3, 3]], ids=str
)
def test_chunks_out_of_order_are_refused(data, order):
    """Chunks that were exchanged, removed or repeated are noticed when the file is opened."""
    parts = [data[start:end] for start, end in places(data)]
    first, last = places(data)[0][0], places(data)[-1][1]
    with (
        pytest.raises(CodecError, match=r"out of place|chunks are missing"),
        open_reader(data[:first] + b"".join(parts[i] for i in order) + data[last:]),
    ):
        pass


@pytest.mark.parametrize(("seed", "cause"), [(4, "chunk 2 .* out of place"), (3, "chunks are missing")])
def test_a_chunk_of_a_different_file_is_refused(data, seed, cause):
    """A chunk of the same size from a different file is noticed, even if that has the same header."""
    others = [*CHUNKS[:2], chunk(9, 2, 25), CHUNKS[3]]
    other = pack_file(HEADER | {"seed": seed}, others, NAMES)
    start, end = places(data)[2]
    theirs, _ = places(other)[2]
    with pytest.raises(CodecError, match=cause):
        contents(data[:start] + other[theirs : theirs + end - start] + data[end:])


@pytest.mark.parametrize("more", [b"\0", b"more" * 1000])
def test_trailing_bytes_are_refused(data, more):
    with pytest.raises(CodecError, match=f"{len(more)} bytes follow its end"):
        contents(data + more)


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", "is not a .vdmz file"), (b"\x89PNG and so on", "is not a .vdmz file"), (None, "no such file")],
)
def test_other_files_are_refused(tmp_path, content, cause):
    path = tmp_path / "a.vdmz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CodecError, match=cause):
        contents(path)
    with pytest.raises(CodecError, match="a folder, where a file is expected"):
        contents(tmp_path)


def test_other_versions_are_refused(data):
    """A file of a different version of the format is reported as such, not as damaged."""
    for version in (1, 2, 4, 255):
        with pytest.raises(
            CodecError, match=f"has version {version} of the format, and this vdmkit-codec reads version 3"
        ):
            contents(data[:4] + bytes([version]) + data[5:])


def record(context: bytes, body: bytes, images: int = 0, length: int | None = None) -> bytes:
    """A record with a correct CRC-32, whose length may be a different one."""
    fields = struct.pack("<HI", images, len(body) if length is None else length)
    return fields + struct.pack("<I", zlib.crc32(context + fields + body)) + body


def deflated(text: bytes) -> bytes:
    """Deflated without the preset dictionary, which readers accept as well."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(text) + packer.flush()


def forged(
    header: bytes | None = None, names: bytes = b"", images: int = 2, lengths: dict[str, int] | None = None
) -> bytes:
    """A file of one chunk with these bytes for its header and names, in which some lengths may be wrong."""
    lengths, start, body = lengths or {}, b"VDMZ\x03", bytes(8) + CHUNKS[2].payload
    header = deflated(json.dumps(HEADER).encode()) if header is None else header
    head = start + record(start, header, length=lengths.get("header"))
    one = record(head + bytes(8), body, images, lengths.get("chunk"))
    return head + one + record(head + one[:FRAME], names, length=lengths.get("names"))


@pytest.fixture
def bounded() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """`bounded(action)`: its result, or None if it raises CodecError; either within a second and 200 MB."""

    def run(action: Callable[[], Any]) -> Any:
        tracemalloc.reset_peak()
        (before, _), start, result = tracemalloc.get_traced_memory(), time.process_time(), None
        with suppress(CodecError):
            result = action()
        assert time.process_time() - start < 1
        assert tracemalloc.get_traced_memory()[1] - before < 200e6
        return result

    tracemalloc.start()
    yield run
    tracemalloc.stop()


def test_the_forger_knows_the_format():
    """Without wrong fields, what the tests below forge is a valid file, so that it is their change that is refused."""
    names = ["a", "b"]
    assert contents(forged(names=deflated(json.dumps(names, separators=(",", ":")).encode())))[2] == names


@pytest.mark.parametrize("field", ["header", "chunk", "names"])
@pytest.mark.parametrize("value", [0, 1, 10**6, 2**31, 2**32 - 1])
def test_forged_lengths_are_refused(bounded, field, value):
    """A length that does not match the file is refused before memory is allocated for it."""
    assert bounded(lambda: contents(forged(names=deflated(b'["a","b"]'), lengths={field: value}))) is None


HEADERS = {
    "empty": b"",
    "not deflated": b"not deflated",
    "not JSON": deflated(b"not JSON"),
    "a list": deflated(b"[1]"),
    "not UTF-8": deflated(b'{"a":"\xff"}'),
    "nested": deflated(b"[" * 100_000),
    "a long number": deflated(b'{"a":' + b"9" * 10_000 + b"}"),
    "more": deflated(b"{}") + b"more",
    "cut off": deflated(b"{}")[:-1],
    "a bomb": deflated(b'{"a":"' + b"a" * (1 << 26) + b'"}'),
}


@pytest.mark.parametrize("name", HEADERS)
def test_forged_headers_are_refused(bounded, name):
    """A header that no vdmkit writes is refused, and takes little memory."""
    file = forged(HEADERS[name])
    assert bounded(lambda: contents(file)) is None
    with pytest.raises(CodecError, match=r"its header cannot be read: .* It was not written by vdmkit"):
        contents(file)


NAMED = {
    "too few": deflated(b'["a"]'),
    "too many": deflated(b'["a","b","c"]'),
    "none": deflated(b"[]"),
    "numbers": deflated(b"[1,2]"),
    "not a list": deflated(b'{"a":"b","c":"d"}'),
    "lists": deflated(b'[[],"","'.ljust(5_000_000, b"[") + b'"]'),
    "empty lists": deflated(b"[" + b"[]," * 6_000_000 + b"[]]"),
    "a bomb": deflated(b'["' + b"a" * (1 << 27) + b'","b"]'),
}


@pytest.mark.parametrize("name", NAMED)
def test_forged_names_are_refused(bounded, name):
    """Names that are not one text for each image are refused, and take little memory."""
    file = forged(names=NAMED[name])
    assert bounded(lambda: contents(file)) is None
    with pytest.raises(CodecError, match="its names cannot be read"):
        contents(file)


@pytest.mark.parametrize("images", [1, 3, 65535])
def test_forged_numbers_of_images_are_refused(bounded, images):
    """A chunk that has a different number of images than names is refused."""
    assert bounded(lambda: contents(forged(names=deflated(b'["a","b"]'), images=images))) is None


def test_what_readers_refuse_is_not_written():
    """Names of a different number, NaN in the header, and chunks beyond the limits of the format raise ValueError."""
    for names in (NAMES[:9], [*NAMES, "a"], []):
        with pytest.raises(ValueError, match="names for 10 images"):
            pack_file(HEADER, CHUNKS, names)
    with pytest.raises(ValueError, match="JSON"):
        pack_file({"margin": float("nan")}, CHUNKS)
    for images, digest in ((0, bytes(8)), (65536, bytes(8)), (1, bytes(32))):
        with pytest.raises(ValueError, match="cannot be written"):
            Chunk(images, b"", digest)
