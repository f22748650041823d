# SPDX-License-Identifier: Apache-2.0
"""The container: what was written is read back, and whatever happens to the file is refused with its cause."""

import json
import os
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from vdmkit_codec.container import open_reader
from vdmkit_codec.container._tail import INDEX, NAMES, _section

from vdmkit.errors import CodecError

FOOTER = 32


@pytest.mark.parametrize("named", [False, True], ids=["no names", "names"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_round_trip(vdmz, tmp_path, count, named):
    """A header, a chunk, its place or a name would come back changed; an archive of no images would be refused."""
    chunks = vdmz.chunks[:count]
    images = sum(one.images for one in chunks)
    names = vdmz.names[:images] if named else None
    path = vdmz.write(tmp_path / "a.vdmz", chunks, names)
    assert vdmz.read(path) == (vdmz.header, chunks, names)
    with open_reader(path) as reader:
        assert reader.images == images
        assert {entry.first: entry.images for entry in reader.chunks} == {
            first: one.images for first, one in vdmz.by_first(chunks).items()
        }
        assert not reader.damaged
    assert vdmz.salvaged(path) == (vdmz.by_first(chunks), images, [])
    assert [path.name for path in tmp_path.iterdir()] == ["a.vdmz"], "nothing is left behind"


def test_threads_read_at_once(vdmz, tmp_path):
    """Chunks that are decoded in parallel would get bytes of one another."""
    chunks = [vdmz.chunk(i, 1, 10_000) for i in range(50)]
    with open_reader(vdmz.write(tmp_path / "a.vdmz", chunks)) as reader, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(reader.chunk, range(50))) == chunks


@pytest.mark.usefixtures("no_disk")
def test_random_files(vdmz, tmp_path):
    """Some number or size of chunks would not come back."""
    rng = random.Random(1)
    for _ in range(30):
        chunks = [vdmz.chunk(rng.random(), rng.randint(1, 5), rng.randint(0, 300)) for _ in range(rng.randint(0, 12))]
        assert vdmz.read(vdmz.write(tmp_path / "a.vdmz", chunks))[1] == chunks


def test_fixed_overhead(vdmz, tmp_path):
    """Small files would pay more than 200 bytes beside payload and header (which is there twice)."""
    header = len(zlib.compress(json.dumps(vdmz.header, sort_keys=True, separators=(",", ":")).encode(), 9))
    size = vdmz.write(tmp_path / "a.vdmz", [vdmz.chunks[0]]).stat().st_size
    assert size - 2 * header - len(vdmz.chunks[0].payload) < 200


def test_every_truncation_is_refused(vdmz, file):
    """A file that was cut short would be taken for a whole one."""
    data = file.read_bytes()
    for size in reversed(range(len(data))):
        os.truncate(file, size)
        with pytest.raises(CodecError, match=r"cut short|is empty"):
            vdmz.read(file)


@pytest.mark.statistical
def test_every_bit_flip_is_refused(vdmz, file):
    """A wrong bit would be read in silence, or end in an error that is not said in words."""
    data = file.read_bytes()
    for _, damaged in vdmz.flips(data):
        vdmz.overwrite(file, damaged)
        with pytest.raises(CodecError):
            vdmz.read(file)


def test_every_bit_flip_of_no_images_is_refused(vdmz, tmp_path):
    """Without chunks nothing would guard the header."""
    path = vdmz.write(tmp_path / "a.vdmz", [], [])
    for _, damaged in vdmz.flips(path.read_bytes()):
        vdmz.overwrite(path, damaged)
        with pytest.raises(CodecError):
            vdmz.read(path)


def rearranged(data: bytes, places, order: list[int]) -> bytes:
    parts = [data[begin:end] for begin, end in places]
    return data[: places[0][0]] + b"".join(parts[i] for i in order) + data[places[-1][1] :]


@pytest.mark.parametrize(
    "order", [[3, 1, 2, 0], [1, 0, 2, 3], [0, 2, 3], [1, 2, 3], [0, 1, 1, 2, 3], [0, 1, 2, 3, 3], [0, 2, 1, 3]], ids=str
)
def test_chunks_out_of_order_are_refused(vdmz, file, places, order):
    """Images would come back under another's name, twice or not at all; and the chunks would be no use to salvage."""
    file.write_bytes(rearranged(file.read_bytes(), places, order))
    with pytest.raises(CodecError, match="out of order"):
        vdmz.read(file)
    found = vdmz.by_first(vdmz.chunks)
    assert vdmz.salvaged(file)[0] == {first: one for i, (first, one) in enumerate(found.items()) if i in order}


def test_a_chunk_that_is_read_alone_is_known_to_be_displaced(vdmz, file, places):
    """Reading a range, a chunk that begins elsewhere would be called damaged."""
    file.write_bytes(rearranged(file.read_bytes(), places, [0, 1, 3, 2]))
    with open_reader(file) as reader, pytest.raises(CodecError, match="out of order"):
        reader.chunk(3)


def test_a_dropped_last_chunk_is_refused(vdmz, file, places):
    """A file would lose its last images in silence."""
    file.write_bytes(rearranged(file.read_bytes(), places, [0, 1, 2]))
    with pytest.raises(CodecError, match="bytes, but was written with"):
        vdmz.read(file)


def test_chunks_of_another_file_are_refused(vdmz, tmp_path, places, file):
    """A chunk that fits by its place and size would be decoded by another model's header, or as another image."""
    data = file.read_bytes()
    begin, end = places[2]
    others = [*vdmz.chunks[:2], vdmz.chunk(9, 2, 25), vdmz.chunks[3]]
    for seed, cause in ((4, "is of another file"), (vdmz.header["seed"], "not the one that the index lists")):
        other = vdmz.write(tmp_path / "b.vdmz", others, header=vdmz.header | {"seed": seed}).read_bytes()
        file.write_bytes(data[:begin] + other[begin:end] + data[end:])
        with pytest.raises(CodecError, match=cause):
            vdmz.read(file)
        chunks, _, words = vdmz.salvaged(file)
        assert 4 not in chunks
        assert len(chunks) == 3
        assert cause in " ".join(words)


def test_a_relabelled_chunk_is_refused(vdmz, tmp_path, places, file):
    """A chunk of another file, given this one's id and a new CRC-32, would be taken for its own."""
    data, (begin, end) = file.read_bytes(), places[2]
    other = vdmz.write(tmp_path / "b.vdmz", header=vdmz.header | {"seed": 4})
    with open_reader(other) as reader:
        start = reader.chunks[2].offset
    theirs = bytearray(other.read_bytes()[start : start + end - begin])
    theirs[4:8] = data[begin + 4 : begin + 8]
    theirs[68:72] = struct.pack("<I", zlib.crc32(theirs[:68]))
    file.write_bytes(data[:begin] + theirs + data[end:])
    with pytest.raises(CodecError, match="not the one that the index lists"):
        vdmz.read(file)
    assert 4 not in vdmz.salvaged(file)[0]
    file.write_bytes(data[:begin] + theirs + data[end : places[3][1]])
    assert 4 not in vdmz.salvaged(file)[0], "its digest is keyed with the other file's id"


def test_names_of_another_file_are_refused(vdmz, tmp_path):
    """Images would get the names of a file with the same header."""
    data = vdmz.write(tmp_path / "a.vdmz", names=[f"{i}.png" for i in range(10)]).read_bytes()
    other = vdmz.write(tmp_path / "b.vdmz", names=[f"{9 - i}.png" for i in range(10)]).read_bytes()
    assert len(data) == len(other)
    begin, end = data.index(NAMES), data.index(INDEX)
    (tmp_path / "a.vdmz").write_bytes(data[:begin] + other[begin:end] + data[end:])
    with pytest.raises(CodecError, match="names are damaged"):
        vdmz.read(tmp_path / "a.vdmz")
    with open_reader(tmp_path / "a.vdmz", salvage=True) as reader:
        assert reader.names is None
        assert reader.damaged == ["its names are damaged or missing"]


def with_header(data: bytes, header: bytes, version: int = 1, flags: int = 0) -> bytes:
    """The file with another header and a checksum of it that holds."""
    old = 12 + struct.unpack_from("<I", data, 8)[0] + 4
    head = struct.pack("<4sHHI", b"VDMZ", version, flags, len(header)) + header
    head += struct.pack("<I", zlib.crc32(head))
    return head + data[old : -FOOTER - old] + head + data[-FOOTER:]


@pytest.mark.parametrize("count", [0, 4])
def test_an_edited_header_is_refused(vdmz, tmp_path, count):
    """Chunks would be decoded by settings that they were not coded with."""
    path = vdmz.write(tmp_path / "a.vdmz", vdmz.chunks[:count])
    edited = zlib.compress(json.dumps(vdmz.header | {"T": 11}, sort_keys=True, separators=(",", ":")).encode(), 9)
    path.write_bytes(with_header(path.read_bytes(), edited))
    with pytest.raises(CodecError, match="header was edited"):
        vdmz.read(path)
    assert not vdmz.salvaged(path)[0]


@pytest.mark.parametrize(("version", "flags"), [(3, 0), (1, 1), (2, 4), (300, 0)])
def test_a_newer_version_is_refused(vdmz, file, version, flags):
    """A file of a later vdmkit would be called damaged, or read by rules that are not its own."""
    file.write_bytes(with_header(file.read_bytes(), b"of another kind", version, flags))
    for read in (vdmz.read, vdmz.salvaged):
        with pytest.raises(CodecError, match="A newer version wrote it: update vdmkit"):
            read(file)


BOMB = zlib.compress(b'{"a":"' + b"a" * (1 << 26) + b'"}', 1)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"not zlib",
        zlib.compress(b"not JSON"),
        zlib.compress(b"[1]"),
        zlib.compress(b'{"a":NaN}'),
        zlib.compress(b'{"a":"\xff"}'),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b'{"a":' + b"9" * 10_000 + b"}"),
        zlib.compress(b"{}") + b"more",
        zlib.compress(b"{}")[:-1],
        BOMB,
    ],
    ids=lambda header: f"{header[:8]} {len(header)}",
)
def test_headers_that_vdmkit_does_not_write_are_refused(vdmz, file, header):
    """A header made to harm would end in another error, or take memory: at most twice its cap of 4 MiB."""
    file.write_bytes(with_header(file.read_bytes(), header))
    tracemalloc.start()
    with pytest.raises(CodecError, match=r"header cannot be read|header is not a JSON object"):
        vdmz.read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def huge(data: bytes, at: int, form: str) -> bytes:
    """The largest value of a length field."""
    damaged = bytearray(data)
    struct.pack_into(form, damaged, at, 256 ** struct.calcsize(form) - 1)
    return bytes(damaged)


def test_huge_lengths_allocate_nothing(vdmz, file, places):
    """A damaged or forged length would take the memory of the machine before it is found out."""
    data = file.read_bytes()
    tail = len(data) - FOOTER
    begin = places[0][0]
    cases = [huge(data, at, "<I") for at in (8, begin + 24, places[-1][1] + 4, tail + 8, tail + 12, tail + 16)]
    cases.append(huge(data, tail, "<Q"))
    for length in (1 << 29, 1 << 31):  # a chunk's own header, its checksum made anew
        forged = bytearray(data)
        struct.pack_into("<I", forged, begin + 24, length)
        struct.pack_into("<I", forged, begin + 68, zlib.crc32(forged[begin : begin + 68]))
        cases.append(bytes(forged))
    tracemalloc.start()
    for case in cases:
        file.write_bytes(case)
        with pytest.raises(CodecError):
            vdmz.read(file)
        assert len(vdmz.salvaged(file)[0]) >= 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22, "the files have about 1 kB; the scan holds a mebibyte at most"


def test_a_bomb_of_names_is_refused(vdmz, file, monkeypatch):
    """Names of a forged file would take memory without bound: at most 4 KiB for each of the 10 images are read."""
    monkeypatch.setattr("vdmkit_codec.container._tail._pack_names", _bomb_of_names)
    vdmz.write(file, names=vdmz.names)
    tracemalloc.start()
    with pytest.raises(CodecError, match="names cannot be read: it is larger"):
        vdmz.read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert vdmz.salvaged(file)[0] == vdmz.by_first(vdmz.chunks)


def _bomb_of_names(names, images, file_id):
    return _section(NAMES, zlib.compress(b'["' + b"a" * (1 << 26) + b'"]', 9), file_id)


@pytest.mark.parametrize("more", [b"\0", b"ZMDV", b"more" * 1000], ids=["zero", "magic", "much"])
def test_trailing_bytes_are_refused(vdmz, file, more):
    """What was added to a file would go unseen."""
    file.write_bytes(file.read_bytes() + more)
    with pytest.raises(CodecError, match=f"{len(more)} bytes follow its end"):
        vdmz.read(file)


@pytest.mark.parametrize(
    ("content", "cause"), [(b"", "is empty"), (b"\x89PNG and so on", "is not a .vdmz file"), (None, "no such file")]
)
def test_other_files_are_refused(vdmz, tmp_path, content, cause):
    """A mistaken name would be called damage."""
    path = tmp_path / "a.vdmz"
    if content is not None:
        path.write_bytes(content)
    for read in (vdmz.read, vdmz.salvaged):
        with pytest.raises(CodecError, match=cause):
            read(path)


def test_a_folder_is_refused(vdmz, tmp_path):
    """A folder's name would end in a traceback."""
    with pytest.raises(CodecError, match="a folder, where a file is expected"):
        vdmz.read(tmp_path)


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        (lambda data, places: 15, "header is damaged"),
        (lambda data, places: places[2][0] + 9, r"chunk 2 \(images 4 to 5\) is damaged"),
        (lambda data, places: places[2][1] - 1, r"chunk 2 \(images 4 to 5\) is damaged"),
        (lambda data, places: places[3][1] + 9, "names are damaged"),
        (lambda data, places: data.index(b"VDMI") + 9, "index is damaged"),
        (lambda data, places: len(data) - FOOTER - 9, "copies of the header is damaged"),
        (lambda data, places: len(data) - FOOTER + 2, "footer is damaged"),
        (lambda data, places: len(data) - 1, "last bytes are damaged"),
    ],
)
def test_what_is_damaged_is_said(vdmz, file, places, where, cause):
    """A message would name another part than the damaged one."""
    data = bytearray(file.read_bytes())
    data[where(data, places)] ^= 4
    file.write_bytes(data)
    with pytest.raises(CodecError, match=cause):
        vdmz.read(file)
    with open_reader(file, salvage=True) as reader:
        assert re.search(cause, " ".join(reader.damaged))


def test_no_jax(tmp_path):
    """`vdmkit inspect` would wait seconds for JAX."""
    code = "import sys, vdmkit_codec.container; print(*{'jax', 'equinox'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
