# SPDX-License-Identifier: Apache-2.0
"""Writing a .vdmz file: however it ends, the file is absent, can be resumed, or is complete."""

import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from vdmkit_codec.container import Chunk, open_reader, open_writer

from vdmkit.errors import CodecError

HEADER = {"profile": "portable", "T": 10, "shape": [8, 8, 1], "gamma": [-8.0, 0.1, 5.0], "seed": 3}


def chunk(seed: int, images: int, size: int) -> Chunk:
    rng = random.Random(seed)
    return Chunk(images, rng.randbytes(size), rng.randbytes(8))


CHUNKS = [chunk(0, 1, 30), chunk(1, 3, 0), chunk(2, 2, 25), chunk(3, 4, 30)]
NAMES = [f"{i}.png" for i in range(10)]


def write(path: Path, chunks: list[Chunk] = CHUNKS, names=None, header=HEADER, resume: bool = False) -> Path:
    with open_writer(path, header, resume=resume) as writer:
        for one in chunks:
            writer.append(one)
        writer.finish(names)
    return path


def chunks_of(path: Path) -> list[Chunk]:
    with open_reader(path) as reader:
        return [reader.chunk(i) for i in range(len(reader.chunks))]


@pytest.fixture
def no_disk(monkeypatch) -> None:
    """A test of many files does not wait for the disk."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.parametrize("finished", [False, True], ids=["before the end", "before the rename"])
@pytest.mark.usefixtures("no_disk")
def test_resume_after_every_cut(tmp_path, finished):
    """After a kill at any byte, resuming keeps every whole chunk and ends in the same file."""
    whole = write(tmp_path / "whole.vdmz", names=NAMES).read_bytes()
    with open_reader(tmp_path / "whole.vdmz") as reader:
        ends = [entry.end for entry in reader.chunks]
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    for size in range(ends[-1], len(whole) + 1) if finished else range(ends[-1] + 1):
        part.write_bytes(whole[:size])
        with open_writer(path, HEADER, resume=True) as writer:
            done = sum(end <= size for end in ends)
            assert writer.images == sum(one.images for one in CHUNKS[:done])
            assert list(writer.written()) == CHUNKS[:done]
            for one in CHUNKS[done:]:
                writer.append(one)
            writer.finish(NAMES)
        assert path.read_bytes() == whole
        assert not part.exists()


@pytest.mark.usefixtures("no_disk")
def test_resume_after_damage(tmp_path):
    """Chunks before a damaged one are kept, and the file is cut there; a damaged header cannot be resumed."""
    whole = write(tmp_path / "whole.vdmz").read_bytes()
    with open_reader(tmp_path / "whole.vdmz") as reader:
        start, end = reader.chunks[2].offset, reader.chunks[2].end
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    for at in range(start, end):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with open_writer(path, HEADER, resume=True) as writer:
            assert writer.images == 4
            assert part.stat().st_size == start
    part.write_bytes(whole[:20] + b"\0" + whole[21:])
    with pytest.raises(CodecError, match=r"header is damaged.*delete it to start over"):
        write(path, resume=True)


def test_resume_with_a_different_header_is_refused(tmp_path):
    """A file is not resumed with other settings, which the message names, and what is refused is not changed."""
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    with open_writer(path, HEADER, resume=False) as writer:
        writer.append(CHUNKS[0])
    before = part.read_bytes()
    now = HEADER | {"T": 20, "new": "a"}
    del now["seed"]
    with pytest.raises(CodecError, match="was begun with other values of T, new, seed"):
        write(path, header=now, resume=True)
    with pytest.raises(CodecError, match=r"Use --resume to continue it, or delete it"):
        write(path)
    assert part.read_bytes() == before
    assert chunks_of(write(path, CHUNKS[1:], resume=True)) == CHUNKS


def test_an_unfinished_file_is_refused(tmp_path):
    """Reading a `.part` says that it is not finished, and how to continue it."""
    with open_writer(tmp_path / "a.vdmz", HEADER, resume=False) as writer:
        writer.append(CHUNKS[0])
        with pytest.raises(CodecError, match=r"is not finished.*--resume"):
            chunks_of(tmp_path / "a.vdmz.part")


def test_an_error_before_the_first_chunk_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), open_writer(tmp_path / "a.vdmz", HEADER, resume=False):
        raise RuntimeError
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "a.vdmz", header={"margin": float("nan")})
    assert not list(tmp_path.iterdir())


def test_names_are_checked_before_the_end_is_written(tmp_path):
    """A wrong number of names raises ValueError, and the chunks are kept."""
    with pytest.raises(ValueError, match="9 names for 10 images"):
        write(tmp_path / "a.vdmz", names=NAMES[:9])
    assert (tmp_path / "a.vdmz.part").exists()


def test_a_full_disk_keeps_whole_chunks(tmp_path, monkeypatch):
    """After a write or a sync that fails, the writer has the chunks before it, and appending again works."""
    real, path = os.pwrite, tmp_path / "a.vdmz"

    def full(descriptor, data, offset):
        if len(data) >= 43:  # the third chunk
            real(descriptor, data[:7], offset)
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: max(1, len(data) // 2)], offset)  # a system may write less than asked

    def failing(descriptor):
        raise OSError(5, "disk")

    chunks = [chunk(0, 1, 10), chunk(1, 3, 0), chunk(2, 2, 25)]
    with open_writer(path, HEADER, resume=False) as writer:
        with monkeypatch.context() as patch:
            patch.setattr("os.pwrite", full)
            writer.append(chunks[0])
            writer.append(chunks[1])
            with pytest.raises(OSError, match="No space") as raised:
                writer.append(chunks[2])
        assert raised.value.filename == f"{path}.part"
        assert writer.images == 4
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", failing)
            with pytest.raises(OSError, match="disk"):
                writer.append(chunk(4, 1, 10_000))
        writer.append(chunks[2])
        writer.finish(None)
        with pytest.raises(ValueError, match="is finished"):
            writer.append(chunks[0])
    assert chunks_of(path) == chunks


def test_two_writers_are_refused(tmp_path):
    """A second process that writes the same file is refused, with and without --resume."""
    path = tmp_path / "a.vdmz"
    with open_writer(path, HEADER, resume=False) as writer:
        writer.append(CHUNKS[0])
        for resume in (False, True):
            with pytest.raises(CodecError, match="a different process is writing it"):
                write(path, resume=resume)
        writer.append(CHUNKS[1])
        writer.finish(None)
    assert chunks_of(path) == CHUNKS[:2]


def test_a_late_writer_does_not_change_the_finished_file(tmp_path, monkeypatch):
    """A writer that opened the `.part` just before it was renamed does not write into the finished file."""
    path, real = tmp_path / "a.vdmz", os.open
    whole = write(path).read_bytes()
    path.rename(tmp_path / "a.vdmz.part")

    def opened_then_finished(file, flags, *rest):
        descriptor = real(file, flags, *rest)
        if Path(file).suffix == ".part":
            os.replace(file, path)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr("os.open", opened_then_finished)
        with pytest.raises(CodecError, match="a different process is writing it"):
            write(path, resume=True)
    assert path.read_bytes() == whole


def test_a_chunk_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    """Every chunk is synced when it is appended, the end before the rename, and the folder after it."""
    events, real_sync, real_replace = [], os.fsync, os.replace

    def sync(descriptor):
        status = os.fstat(descriptor)
        events.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)
        real_sync(descriptor)

    def replace(source, target):
        events.append("rename")
        real_replace(source, target)

    monkeypatch.setattr("os.fsync", sync)
    monkeypatch.setattr("os.replace", replace)
    path = write(tmp_path / "a.vdmz")
    monkeypatch.undo()
    with open_reader(path) as reader:
        ends, first = [entry.end for entry in reader.chunks], reader.chunks[0].offset
    assert events == [first, "folder", *ends, path.stat().st_size, "rename", "folder"]


CHILD = """
import sys
from pathlib import Path
from vdmkit_codec.container import Chunk, open_writer
path, count = Path(sys.argv[1]), int(sys.argv[2])
with open_writer(path, {"T": 1}, resume=True) as writer:
    print("open", writer.images, flush=True)
    while writer.images < count:
        writer.append(Chunk(1, bytes([writer.images % 256]) * 5000, bytes(8)))
        print("chunk", writer.images, flush=True)
    writer.finish([str(i) for i in range(count)])
    print("done", flush=True)
"""


def test_killed_while_writing(tmp_path):
    """After each SIGKILL the file is absent, can be resumed or is complete, and no chunk that was appended is lost."""
    path, count, appended = tmp_path / "a.vdmz", 12, 0
    for lines in (1, 2, 1, 4, 3, 2, count + 2):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(count)], stdout=subprocess.PIPE, text=True
        ) as child:
            for line, _ in zip(child.stdout, range(lines), strict=False):
                word, *number = line.split()
                if word == "open":
                    assert int(number[0]) >= appended
                appended = int(number[0]) if number else appended
            child.send_signal(signal.SIGKILL)
        if path.exists():
            break
    assert [one.payload for one in chunks_of(path)] == [bytes([i]) * 5000 for i in range(count)]
    with open_reader(path) as reader:
        assert reader.names == [str(i) for i in range(count)]
