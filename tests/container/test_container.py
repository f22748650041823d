# SPDX-License-Identifier: Apache-2.0
"""The container: what was written is read back, and whatever happens to the file is refused with its cause."""

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest

from vdmkit.container import Chunk, open_reader, open_writer
from vdmkit.errors import CodecError

HEADER = {"profile": "portable", "T": 10, "shape": [8, 8, 1], "gamma": [-8.0, 0.1, 5.0], "seed": 3}
CHUNK_HEADER, FOOTER = 72, 32


def chunk(i: int, images: int = 2, size: int = 20) -> Chunk:
    payload = random.Random(i).randbytes(size)
    return Chunk(images, payload, hashlib.sha256(payload).digest())


CHUNKS = [chunk(0, 1, 30), chunk(1, 3, 0), chunk(2, 2, 25), chunk(3, 4, 30)]
NAMES = [f"image {i} \u00e9\udcff.png" for i in range(10)]  # one byte that is not UTF-8, as file names may have


def write(path: Path, chunks=tuple(CHUNKS), names=None, header=HEADER, resume=False) -> Path:
    with open_writer(path, header, resume=resume) as writer:
        for one in chunks:
            writer.append(one)
        writer.finish(names)
    return path


def overwrite(path: Path, data: bytes) -> None:
    """In place: a file system may wait for the disk when a file was cut to nothing before it is written."""
    with path.open("r+b") as file:
        file.write(data)


def read_all(path: Path) -> tuple:
    with open_reader(path) as reader:
        return reader.header, [reader.chunk(i) for i in range(len(reader.chunks))], reader.names


def salvaged(path: Path) -> tuple[dict[int, Chunk], int, list[str]]:
    """Undamaged chunks by their first image, the number of images, and what is damaged."""
    with open_reader(path, salvage=True) as reader:
        chunks = {}
        for i, entry in enumerate(reader.chunks):
            try:
                chunks[entry.first] = reader.chunk(i)
            except CodecError:
                assert reader.damaged
        return chunks, reader.images, reader.damaged


def by_first(chunks) -> dict[int, Chunk]:
    firsts = [sum(one.images for one in chunks[:i]) for i in range(len(chunks))]
    return dict(zip(firsts, chunks, strict=True))


def flips(data: bytes, begin: int = 0, end: int | None = None):
    """Every file with one bit wrong between two positions; 2,000 at random where there are more than 8,000."""
    bits = range(8 * begin, 8 * (len(data) if end is None else end))
    for bit in bits if len(bits) <= 8000 else random.Random(0).sample(bits, 2000):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bit // 8, bytes(damaged)


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "a.vdmz", names=NAMES)


@pytest.fixture
def places(file) -> list[tuple[int, int]]:
    """Where each chunk of `file` begins and ends."""
    with open_reader(file) as reader:
        return [(entry.offset, entry.end) for entry in reader.chunks]


@pytest.mark.parametrize("names", [None, NAMES], ids=["no names", "names"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_round_trip(tmp_path, count, names):
    """A header, a chunk, its place or a name would come back changed; an archive of no images would be refused."""
    chunks = CHUNKS[:count]
    images = sum(one.images for one in chunks)
    names = None if names is None else names[:images]
    path = write(tmp_path / "a.vdmz", chunks, names)
    assert read_all(path) == (HEADER, chunks, names)
    with open_reader(path) as reader:
        assert reader.images == images
        assert {entry.first: entry.images for entry in reader.chunks} == {
            first: one.images for first, one in by_first(chunks).items()
        }
        assert not reader.damaged
    assert salvaged(path) == (by_first(chunks), images, [])
    assert [path.name for path in tmp_path.iterdir()] == ["a.vdmz"], "nothing is left behind"


def test_random_files(tmp_path):
    """Some number or size of chunks would not come back."""
    rng = random.Random(1)
    for _ in range(30):
        chunks = [chunk(rng.random(), rng.randint(1, 5), rng.randint(0, 300)) for _ in range(rng.randint(0, 12))]
        assert read_all(write(tmp_path / "a.vdmz", chunks))[1] == chunks


def test_fixed_overhead(tmp_path):
    """Small files would pay more than 200 bytes beside payload and header (which is there twice)."""
    header = len(zlib.compress(json.dumps(HEADER, sort_keys=True, separators=(",", ":")).encode(), 9))
    size = write(tmp_path / "a.vdmz", [CHUNKS[0]]).stat().st_size
    assert size - 2 * header - len(CHUNKS[0].payload) < 200


def test_every_truncation_is_refused(file):
    """A file that was cut short would be taken for a whole one."""
    data = file.read_bytes()
    for size in reversed(range(len(data))):
        os.truncate(file, size)
        with pytest.raises(CodecError, match=r"cut short|is empty"):
            read_all(file)


def test_every_bit_flip_is_refused(file):
    """A wrong bit would be read in silence, or end in an error that is not said in words."""
    data = file.read_bytes()
    for _, damaged in flips(data):
        overwrite(file, damaged)
        with pytest.raises(CodecError):
            read_all(file)


def test_every_bit_flip_of_no_images_is_refused(tmp_path):
    """Without chunks nothing would guard the header."""
    path = write(tmp_path / "a.vdmz", [], [])
    for _, damaged in flips(path.read_bytes()):
        overwrite(path, damaged)
        with pytest.raises(CodecError):
            read_all(path)


@pytest.mark.parametrize("names", [None, NAMES], ids=["no names", "names"])
def test_every_bit_flip_is_salvaged(tmp_path, names):
    """One wrong bit would cost more than the chunk it is in, or give images another index."""
    path = write(tmp_path / "a.vdmz", names=names)
    with open_reader(path) as reader:
        places = [(entry.offset, entry.end) for entry in reader.chunks]
    for at, damaged in flips(path.read_bytes()):
        overwrite(path, damaged)
        hit = [begin <= at < end for begin, end in places]
        expected = {first: one for (first, one), lost in zip(by_first(CHUNKS).items(), hit, strict=True) if not lost}
        chunks, images, words = salvaged(path)
        assert chunks == expected
        assert images == 10
        assert len(words) >= 1


def test_salvage_without_an_index(file, places):
    """Without its end, a file with a damaged chunk would lose others, or count its images wrongly."""
    data = file.read_bytes()[: places[-1][1]]
    for at, damaged in flips(data, *places[1]):
        overwrite(file, damaged)
        chunks, images, words = salvaged(file)
        assert chunks == {first: one for first, one in by_first(CHUNKS).items() if first != 1}, at
        assert images == 10
        assert any("chunk 1 (images 1 to 3) is damaged" in word or "images 1 to 3 are lost" in word for word in words)


def test_salvage_of_every_truncation(file, places):
    """Chunks before the cut would be lost."""
    data = file.read_bytes()
    for size in reversed(range(places[0][0], len(data))):
        os.truncate(file, size)
        chunks, _, words = salvaged(file)
        assert list(chunks.values()) == [one for one, (_, end) in zip(CHUNKS, places, strict=True) if end <= size]
        assert any("cut short" in word for word in words)


def test_salvage_where_bytes_were_taken_out(file, places):
    """Chunks that are no longer where the index says would be lost."""
    data = file.read_bytes()
    begin, end = places[2]
    for cut in (begin, begin + 5, end - 3):
        file.write_bytes(data[:cut] + data[cut + 3 :])
        assert salvaged(file)[0] == {first: one for first, one in by_first(CHUNKS).items() if first != 4}


def test_salvage_needs_one_header(file):
    """Images would be decoded by a guessed header; or one damaged copy would cost everything."""
    data = bytearray(file.read_bytes())
    head = 12 + struct.unpack_from("<I", data, 8)[0] + 4
    data[:head] = bytes(head)
    file.write_bytes(data)
    assert salvaged(file)[0] == by_first(CHUNKS)
    data[-FOOTER - 20] ^= 1
    file.write_bytes(data)
    with pytest.raises(CodecError, match="No whole copy of its header"):
        salvaged(file)


def test_salvage_finds_what_lies_across_pieces(tmp_path):
    """A tag that lies across the border of two pieces of a mebibyte would not be found."""
    size = (1 << 20) - CHUNK_HEADER - len(write(tmp_path / "b.vdmz", []).read_bytes()) // 2
    for shift in range(-6, 7):
        chunks = [chunk(0, 1, size + shift), chunk(1, 1, 10)]
        path = write(tmp_path / "a.vdmz", chunks)
        data = bytearray(path.read_bytes())
        data[300] ^= 1  # so that the first chunk is searched through
        path.write_bytes(data)
        assert salvaged(path)[0] == {1: chunks[1]}


def rearranged(data: bytes, places, order: list[int]) -> bytes:
    parts = [data[begin:end] for begin, end in places]
    return data[: places[0][0]] + b"".join(parts[i] for i in order) + data[places[-1][1] :]


@pytest.mark.parametrize(
    "order", [[3, 1, 2, 0], [1, 0, 2, 3], [0, 2, 3], [1, 2, 3], [0, 1, 1, 2, 3], [0, 1, 2, 3, 3], [3, 0, 1, 2]], ids=str
)
def test_chunks_out_of_order_are_refused(file, places, order):
    """Images would come back under another's name, twice or not at all; and the chunks would be no use to salvage."""
    file.write_bytes(rearranged(file.read_bytes(), places, order))
    with pytest.raises(CodecError, match=r"out of order|chunk 1 .* is damaged"):
        read_all(file)
    found = by_first(CHUNKS)
    assert salvaged(file)[0] == {first: one for i, (first, one) in enumerate(found.items()) if i in order}


def test_a_dropped_last_chunk_is_refused(file, places):
    """A file would lose its last images in silence."""
    file.write_bytes(rearranged(file.read_bytes(), places, [0, 1, 2]))
    with pytest.raises(CodecError, match="bytes, but was written with"):
        read_all(file)


def test_chunks_of_another_file_are_refused(tmp_path, places, file):
    """A chunk that fits by its place and size would be decoded by another model's header, or as another image."""
    data = file.read_bytes()
    begin, end = places[2]
    for header, cause in ((HEADER | {"seed": 4}, "is of another file"), (HEADER, "not the one that the index lists")):
        other = write(tmp_path / "b.vdmz", [*CHUNKS[:2], chunk(9, 2, 25), CHUNKS[3]], header=header).read_bytes()
        file.write_bytes(data[:begin] + other[begin:end] + data[end:])
        with pytest.raises(CodecError, match=cause):
            read_all(file)
        chunks, _, words = salvaged(file)
        assert 4 not in chunks
        assert len(chunks) == 3
        assert words


def with_header(data: bytes, header: bytes, version: int = 1, flags: int = 0) -> bytes:
    """The file with another header and a checksum of it that holds."""
    old = 12 + struct.unpack_from("<I", data, 8)[0] + 4
    head = struct.pack("<4sHHI", b"VDMZ", version, flags, len(header)) + header
    head += struct.pack("<I", zlib.crc32(head))
    return head + data[old : -FOOTER - old] + head + data[-FOOTER:]


@pytest.mark.parametrize("chunks", [[], CHUNKS], ids=["no chunks", "chunks"])
def test_an_edited_header_is_refused(tmp_path, chunks):
    """Chunks would be decoded by settings that they were not coded with."""
    path = write(tmp_path / "a.vdmz", chunks)
    edited = zlib.compress(json.dumps(HEADER | {"T": 11}, sort_keys=True, separators=(",", ":")).encode(), 9)
    path.write_bytes(with_header(path.read_bytes(), edited))
    with pytest.raises(CodecError, match="header was edited"):
        read_all(path)
    assert not salvaged(path)[0]


@pytest.mark.parametrize(("version", "flags"), [(2, 0), (1, 1), (300, 0)])
def test_a_newer_version_is_refused(file, version, flags):
    """A file of a later vdmkit would be called damaged, or read by rules that are not its own."""
    file.write_bytes(with_header(file.read_bytes(), b"of another kind", version, flags))
    for read in (read_all, salvaged):
        with pytest.raises(CodecError, match="A newer version wrote it: update vdmkit"):
            read(file)


BOMB = zlib.compress(b'{"a":"' + b"a" * (1 << 26) + b'"}', 9)


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
def test_headers_that_vdmkit_does_not_write_are_refused(file, header):
    """A header made to harm would end in another error, or take memory: at most twice its cap of 4 MiB."""
    file.write_bytes(with_header(file.read_bytes(), header))
    tracemalloc.start()
    with pytest.raises(CodecError, match="header"):
        read_all(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def huge(data: bytes, at: int, form: str) -> bytes:
    """The largest value of a length field."""
    damaged = bytearray(data)
    struct.pack_into(form, damaged, at, 256 ** struct.calcsize(form) - 1)
    return bytes(damaged)


def test_huge_lengths_allocate_nothing(file, places):
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
            read_all(file)
        assert len(salvaged(file)[0]) >= 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22, "the files have about 1 kB; the scan holds a mebibyte at most"


def test_a_bomb_of_names_is_refused(file, monkeypatch):
    """Names of a forged file would take memory without bound: at most 4 KiB for each of the 10 images are read."""
    monkeypatch.setattr("vdmkit.container._tail._pack_names", _bomb_of_names)
    write(file, names=NAMES)
    tracemalloc.start()
    with pytest.raises(CodecError, match="names cannot be read: it is larger"):
        read_all(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert salvaged(file)[0] == by_first(CHUNKS)


def _bomb_of_names(names, images, file_id):
    from vdmkit.container._tail import NAMES as TAG
    from vdmkit.container._tail import _section

    return _section(TAG, zlib.compress(b'["' + b"a" * (1 << 26) + b'"]', 9), file_id)


@pytest.mark.parametrize("more", [b"\0", b"ZMDV", b"more" * 1000], ids=["zero", "magic", "much"])
def test_trailing_bytes_are_refused(file, more):
    """What was added to a file would go unseen."""
    file.write_bytes(file.read_bytes() + more)
    with pytest.raises(CodecError, match=f"{len(more)} bytes follow its end"):
        read_all(file)


@pytest.mark.parametrize(
    ("content", "cause"), [(b"", "is empty"), (b"\x89PNG and so on", "is not a .vdmz file"), (None, "cannot be opened")]
)
def test_other_files_are_refused(tmp_path, content, cause):
    """A mistaken name would be called damage."""
    path = tmp_path / "a.vdmz"
    if content is not None:
        path.write_bytes(content)
    for read in (read_all, salvaged):
        with pytest.raises(CodecError, match=cause):
            read(path)


def test_a_folder_is_refused(tmp_path):
    """A folder's name would end in a traceback."""
    with pytest.raises(CodecError, match="cannot be read"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        (lambda data, places: 15, "header is damaged"),
        (lambda data, places: places[2][0] + 9, r"chunk 2 \(images 4 to 5\) is damaged"),
        (lambda data, places: places[2][1] - 1, r"chunk 2 \(images 4 to 5\) is damaged"),
        (lambda data, places: places[3][1] + 9, "names are damaged"),
        (lambda data, places: data.index(b"VDMI") + 9, "index is damaged"),
        (lambda data, places: len(data) - FOOTER - 9, "two copies of the header"),
        (lambda data, places: len(data) - FOOTER + 2, "footer is damaged"),
        (lambda data, places: len(data) - 1, "last bytes are damaged"),
    ],
)
def test_what_is_damaged_is_said(file, places, where, cause):
    """A message would name another part than the damaged one."""
    data = bytearray(file.read_bytes())
    data[where(data, places)] ^= 4
    file.write_bytes(data)
    with pytest.raises(CodecError, match=cause):
        read_all(file)
    with open_reader(file, salvage=True) as reader:
        assert any(word in " ".join(reader.damaged) for word in (cause, "header", "chunk 2 (images 4 to 5)", "names"))


@pytest.mark.parametrize("finished", [False, True], ids=["before the tail", "before the rename"])
def test_resume_after_every_cut(tmp_path, finished):
    """A kill at some byte would lose a whole chunk, keep half of one, or end in a file that differs."""
    whole = write(tmp_path / "whole.vdmz", names=NAMES).read_bytes()
    with open_reader(tmp_path / "whole.vdmz") as reader:
        ends = [entry.end for entry in reader.chunks]
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    for size in range(ends[-1], len(whole) + 1) if finished else range(ends[-1] + 1):
        part.write_bytes(whole[:size])
        with open_writer(path, HEADER, resume=True) as writer:
            done = sum(end <= size for end in ends)
            assert writer.images == sum(one.images for one in CHUNKS[:done])
            for one in CHUNKS[done:]:
                writer.append(one)
            writer.finish(NAMES)
        assert path.read_bytes() == whole
        assert not part.exists()


def test_resume_after_damage(tmp_path):
    """Chunks from a damaged one on would be kept, or those before it lost."""
    write(tmp_path / "whole.vdmz")
    whole = (tmp_path / "whole.vdmz").read_bytes()
    with open_reader(tmp_path / "whole.vdmz") as reader:
        begin, end = reader.chunks[2].offset, reader.chunks[2].end
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    for at in range(begin, end):
        damaged = bytearray(whole)
        damaged[at] ^= 16
        part.write_bytes(damaged)
        with open_writer(path, HEADER, resume=True) as writer:
            assert writer.images == 4
    part.write_bytes(whole[:20] + b"\0" + whole[21:])
    with pytest.raises(CodecError, match=r"header is damaged.*delete it to begin anew"):
        write(path, resume=True)


def test_resume_with_another_header_is_refused(tmp_path):
    """A file would hold chunks of two models; or 1 and true would be taken for one another."""
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    with open_writer(path, HEADER, resume=False) as writer:
        writer.append(CHUNKS[0])
    before = part.read_bytes()
    now = {**HEADER, "T": 20, "new": True}
    del now["seed"]
    with pytest.raises(CodecError, match="T was 10, is now 20; new was absent, is now true; seed was 3, is now absent"):
        write(path, header=now, resume=True)
    with pytest.raises(CodecError, match=r"--resume goes on with it; delete it"):
        write(path)
    assert part.read_bytes() == before, "what is refused is not touched"
    assert read_all(write(path, CHUNKS[1:], resume=True))[1] == CHUNKS


def test_an_unfinished_file_is_refused_and_salvaged(tmp_path):
    """Someone would wait in vain, or lose what was written."""
    part = tmp_path / "a.vdmz.part"
    with open_writer(tmp_path / "a.vdmz", HEADER, resume=False) as writer:
        writer.append(CHUNKS[0])
        writer.append(CHUNKS[1])
        with pytest.raises(CodecError, match=r"is not finished.*--resume"):
            read_all(part)
    assert salvaged(part)[0] == by_first(CHUNKS[:2])


def test_an_error_before_the_first_chunk_leaves_nothing(tmp_path):
    """A mistake that was found at once would have to be cleared away by hand."""
    with pytest.raises(RuntimeError), open_writer(tmp_path / "a.vdmz", HEADER, resume=False):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_what_was_whole(tmp_path, monkeypatch):
    """A chunk that was half written would be kept, or the same writer could not try again."""
    real, path = os.pwrite, tmp_path / "a.vdmz"

    def full(descriptor, data, offset):
        if len(data) == 25:
            real(descriptor, data[:7], offset)
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: max(1, len(data) // 2)], offset)  # a system may write less than it is given

    with open_writer(path, HEADER, resume=False) as writer:
        with monkeypatch.context() as patch:
            patch.setattr("os.pwrite", full)
            writer.append(CHUNKS[0])
            writer.append(CHUNKS[1])
            with pytest.raises(OSError, match="No space"):
                writer.append(CHUNKS[2])
        assert writer.images == 4
        for one in CHUNKS[2:]:
            writer.append(one)
        writer.finish(None)
        with pytest.raises(ValueError, match="is finished"):
            writer.append(CHUNKS[0])
    assert read_all(path)[1] == CHUNKS


def test_two_writers_at_once_are_refused(tmp_path):
    """Two commands would write into one file."""
    path = tmp_path / "a.vdmz"
    with open_writer(path, HEADER, resume=False) as writer:
        writer.append(CHUNKS[0])
        for resume in (False, True):
            with pytest.raises(CodecError, match="another vdmkit is writing it"):
                write(path, resume=resume)
        writer.append(CHUNKS[1])
        writer.finish(None)
    assert read_all(path)[1] == CHUNKS[:2]


def test_a_writer_that_waited_does_not_touch_the_finished_file(tmp_path, monkeypatch):
    """One who opened the `.part` just before it got its name would cut the finished file."""
    path, real = tmp_path / "a.vdmz", os.open
    with open_writer(path, HEADER, resume=False) as writer:
        writer.append(CHUNKS[0])
    (tmp_path / "again").write_bytes((tmp_path / "a.vdmz.part").read_bytes())

    def opened_then_renamed(file, flags, *rest):
        descriptor = real(file, flags, *rest)
        if Path(file).suffix == ".part":
            os.replace(tmp_path / "again", path)
            os.unlink(file)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr("os.open", opened_then_renamed)
        with pytest.raises(CodecError, match="another vdmkit"):
            write(path, resume=True)


@pytest.mark.parametrize("wrong", [NAMES[:9], [*NAMES, "more"], []])
def test_names_must_be_of_all_images(tmp_path, wrong):
    """Images would get names of others."""
    with pytest.raises(ValueError, match="names for 10 images"):
        write(tmp_path / "a.vdmz", names=wrong)
    assert (tmp_path / "a.vdmz.part").exists(), "what was coded is kept"


def test_not_a_number_is_refused(tmp_path):
    """A header would be written that is not JSON."""
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "a.vdmz", header={"margin": float("nan")})
    assert not list(tmp_path.iterdir())


CHILD = """
import sys
from pathlib import Path
from vdmkit.container import Chunk, open_writer
path, count = Path(sys.argv[1]), int(sys.argv[2])
with open_writer(path, {"T": 1}, resume=True) as writer:
    print("open", writer.images, flush=True)
    while writer.images < count:
        writer.append(Chunk(1, bytes([writer.images % 256]) * 5000, bytes(32)))
        print("chunk", writer.images, flush=True)
    writer.finish([str(i) for i in range(count)])
    print("done", flush=True)
"""


def test_killed_while_writing(tmp_path):
    """A kill would leave a file that is not absent, resumable or complete, or lose a chunk that was announced."""
    path, count, announced = tmp_path / "a.vdmz", 12, 0
    for lines in (1, 2, 1, 4, 3, 2, count + 2):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(count)], stdout=subprocess.PIPE, text=True
        ) as child:
            for line, _ in zip(child.stdout, range(lines), strict=False):
                word, *number = line.split()
                if word == "open":
                    assert int(number[0]) >= announced
                announced = int(number[0]) if number else announced
            child.send_signal(signal.SIGKILL)
        if path.exists():
            break
        found, _, _ = salvaged(tmp_path / "a.vdmz.part")
        assert len(found) >= announced
    _, chunks, names = read_all(path)
    assert [one.payload for one in chunks] == [bytes([i]) * 5000 for i in range(count)]
    assert names == [str(i) for i in range(count)]


def test_no_jax(tmp_path):
    """`vdmkit inspect` would wait seconds for JAX."""
    code = "import sys, vdmkit.container; print(*{'jax', 'equinox'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
