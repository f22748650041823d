# SPDX-License-Identifier: Apache-2.0
"""Writing: killed, cut or refused at any moment, a file is absent, resumable or complete."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from vdmkit_codec.container import open_reader, open_writer

from vdmkit.errors import CodecError


@pytest.mark.parametrize("finished", [False, True], ids=["before the tail", "before the rename"])
@pytest.mark.usefixtures("no_disk")
def test_resume_after_every_cut(vdmz, tmp_path, finished):
    """A kill at some byte would lose a whole chunk, keep half of one, or end in a file that differs."""
    whole = vdmz.write(tmp_path / "whole.vdmz", names=vdmz.names).read_bytes()
    with open_reader(tmp_path / "whole.vdmz") as reader:
        ends = [entry.end for entry in reader.chunks]
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    for size in range(ends[-1], len(whole) + 1) if finished else range(ends[-1] + 1):
        part.write_bytes(whole[:size])
        with open_writer(path, vdmz.header, resume=True, small=0) as writer:
            done = sum(end <= size for end in ends)
            assert writer.images == sum(one.images for one in vdmz.chunks[:done])
            for one in vdmz.chunks[done:]:
                writer.append(one)
            writer.finish(vdmz.names)
        assert path.read_bytes() == whole
        assert not part.exists()


@pytest.mark.usefixtures("no_disk")
def test_resume_after_damage(vdmz, tmp_path):
    """Chunks from a damaged one on would be kept, or those before it lost."""
    vdmz.write(tmp_path / "whole.vdmz")
    whole = (tmp_path / "whole.vdmz").read_bytes()
    with open_reader(tmp_path / "whole.vdmz") as reader:
        begin, end = reader.chunks[2].offset, reader.chunks[2].end
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    for at in range(begin, end):
        damaged = bytearray(whole)
        damaged[at] ^= 16
        part.write_bytes(damaged)
        with open_writer(path, vdmz.header, resume=True, small=0) as writer:
            assert writer.images == 4
            assert part.stat().st_size == begin, "a later kill would bring back what follows"
    part.write_bytes(whole[:20] + b"\0" + whole[21:])
    with pytest.raises(CodecError, match=r"header is damaged.*delete it to begin anew"):
        vdmz.write(path, resume=True)


def test_resume_with_another_header_is_refused(vdmz, tmp_path):
    """A file would hold chunks of two models; or 1 and true would be taken for one another."""
    path, part = tmp_path / "a.vdmz", tmp_path / "a.vdmz.part"
    begun = vdmz.header | {"flag": 1}
    with open_writer(path, begun, resume=False, small=0) as writer:
        writer.append(vdmz.chunks[0])
    before = part.read_bytes()
    now = begun | {"T": 20, "new": "a", "flag": True}
    del now["seed"]
    changes = 'T was 10, is now 20; flag was 1, is now true; new was absent, is now "a"; seed was 3, is now absent'
    with pytest.raises(CodecError, match=changes):
        vdmz.write(path, header=now, resume=True)
    with pytest.raises(CodecError, match=r"Use --resume to go on with it, or delete it"):
        vdmz.write(path)
    assert part.read_bytes() == before, "what is refused is not touched"
    assert vdmz.read(vdmz.write(path, vdmz.chunks[1:], header=begun, resume=True))[1] == vdmz.chunks


def test_an_unfinished_file_is_refused_and_salvaged(vdmz, tmp_path):
    """Someone would wait in vain, or lose what was written."""
    part = tmp_path / "a.vdmz.part"
    with open_writer(tmp_path / "a.vdmz", vdmz.header, resume=False, small=0) as writer:
        writer.append(vdmz.chunks[0])
        writer.append(vdmz.chunks[1])
        with pytest.raises(CodecError, match=r"is not finished.*--resume"):
            vdmz.read(part)
    assert vdmz.salvaged(part)[0] == vdmz.by_first(vdmz.chunks[:2])


def test_an_error_before_the_first_chunk_leaves_nothing(vdmz, tmp_path):
    """A mistake that was found at once would have to be cleared away by hand."""
    with pytest.raises(RuntimeError), open_writer(tmp_path / "a.vdmz", vdmz.header, resume=False, small=0):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_what_was_whole(vdmz, tmp_path, monkeypatch):
    """A chunk that was half written would be kept, or the same writer could not try again."""
    real, path = os.pwrite, tmp_path / "a.vdmz"

    def full(descriptor, data, offset):
        if len(data) == 25:
            real(descriptor, data[:7], offset)
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: max(1, len(data) // 2)], offset)  # a system may write less than it is given

    def failing(descriptor):
        raise OSError(5, "disk")

    with open_writer(path, vdmz.header, resume=False, small=0) as writer:
        with monkeypatch.context() as patch:
            patch.setattr("os.pwrite", full)
            writer.append(vdmz.chunks[0])
            writer.append(vdmz.chunks[1])
            with pytest.raises(OSError, match="No space"):
                writer.append(vdmz.chunks[2])
        assert writer.images == 4
        for one in vdmz.chunks[2:]:
            writer.append(one)
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", failing)
            with pytest.raises(OSError, match="disk"):
                writer.append(vdmz.chunk(4, 1, 10_000))  # all of it is written, and does not count
        writer.finish(None)
        with pytest.raises(ValueError, match="is finished"):
            writer.append(vdmz.chunks[0])
    assert vdmz.read(path)[1] == vdmz.chunks


def test_two_writers_at_once_are_refused(vdmz, tmp_path):
    """Two commands would write into one file."""
    path = tmp_path / "a.vdmz"
    with open_writer(path, vdmz.header, resume=False, small=0) as writer:
        writer.append(vdmz.chunks[0])
        for resume in (False, True):
            with pytest.raises(CodecError, match="another vdmkit is writing it"):
                vdmz.write(path, resume=resume)
        writer.append(vdmz.chunks[1])
        writer.finish(None)
    assert vdmz.read(path)[1] == vdmz.chunks[:2]


def test_a_writer_that_waited_does_not_touch_the_finished_file(vdmz, tmp_path, monkeypatch):
    """One who opened the `.part` just before it got its name would cut the finished file."""
    path, real = tmp_path / "a.vdmz", os.open
    whole = vdmz.write(path).read_bytes()
    path.rename(tmp_path / "a.vdmz.part")

    def opened_then_finished(file, flags, *rest):
        descriptor = real(file, flags, *rest)
        if Path(file).suffix == ".part":
            os.replace(file, path)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr("os.open", opened_then_finished)
        with pytest.raises(CodecError, match="another vdmkit"):
            vdmz.write(path, resume=True)
    assert path.read_bytes() == whole


def test_a_chunk_is_on_the_disk_before_it_counts(vdmz, tmp_path, monkeypatch):
    """A power cut would leave a finished name on a file whose bytes are not there, or lose a chunk that was counted."""
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
    path = vdmz.write(tmp_path / "a.vdmz")
    monkeypatch.undo()
    with open_reader(path) as reader:
        ends = [entry.end for entry in reader.chunks]
        first = reader.chunks[0].offset
    assert events == [first, "folder", *ends, path.stat().st_size, "rename", "folder"]


@pytest.mark.parametrize("count", [9, 11, 0])
def test_names_must_be_of_all_images(vdmz, tmp_path, count):
    """Images would get names of others."""
    with pytest.raises(ValueError, match="names for 10 images"):
        vdmz.write(tmp_path / "a.vdmz", names=["a"] * count)
    assert (tmp_path / "a.vdmz.part").exists(), "what was coded is kept"


def test_not_a_number_is_refused(vdmz, tmp_path):
    """A header would be written that is not JSON."""
    with pytest.raises(ValueError, match="JSON"):
        vdmz.write(tmp_path / "a.vdmz", header={"margin": float("nan")})
    assert not list(tmp_path.iterdir())


CHILD = """
import sys
from pathlib import Path
from vdmkit_codec.container import Chunk, open_writer
path, count = Path(sys.argv[1]), int(sys.argv[2])
with open_writer(path, {"T": 1}, resume=True, small=0) as writer:
    print("open", writer.images, flush=True)
    while writer.images < count:
        writer.append(Chunk(1, bytes([writer.images % 256]) * 5000, bytes(32)))
        print("chunk", writer.images, flush=True)
    writer.finish([str(i) for i in range(count)])
    print("done", flush=True)
"""


def test_killed_while_writing(vdmz, tmp_path):
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
        found, _, _ = vdmz.salvaged(tmp_path / "a.vdmz.part")
        assert len(found) >= announced
    _, chunks, names = vdmz.read(path)
    assert [one.payload for one in chunks] == [bytes([i]) * 5000 for i in range(count)]
    assert names == [str(i) for i in range(count)]
