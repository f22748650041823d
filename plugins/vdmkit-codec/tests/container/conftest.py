# SPDX-License-Identifier: Apache-2.0
"""Small files of random payloads, and what is done to them."""

import hashlib
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from vdmkit_codec.container import Chunk, open_reader, open_writer

from vdmkit.errors import CodecError

HEADER = {"profile": "portable", "T": 10, "shape": [8, 8, 1], "gamma": [-8.0, 0.1, 5.0], "seed": 3}


def chunk(i: int, images: int = 2, size: int = 20) -> Chunk:
    payload = random.Random(i).randbytes(size)
    return Chunk(images, payload, hashlib.sha256(payload).digest())


CHUNKS = [chunk(0, 1, 30), chunk(1, 3, 0), chunk(2, 2, 25), chunk(3, 4, 30)]
NAMES = [f"image {i} \u00e9\udcff.png" for i in range(10)]  # one byte that is not UTF-8, as file names may have


def write(path: Path, chunks=tuple(CHUNKS), names=None, header=HEADER, resume=False, small=0) -> Path:
    with open_writer(path, header, resume=resume, small=small) as writer:
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


@pytest.fixture(scope="session")
def vdmz() -> SimpleNamespace:
    """The header, chunks and names of a small file, and functions that write, read and damage one."""
    return SimpleNamespace(
        header=HEADER,
        chunks=CHUNKS,
        names=NAMES,
        chunk=chunk,
        write=write,
        overwrite=overwrite,
        read=read_all,
        salvaged=salvaged,
        by_first=by_first,
        flips=flips,
    )


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "a.vdmz", names=NAMES)


@pytest.fixture
def places(file) -> list[tuple[int, int]]:
    """Where each chunk of `file` begins and ends."""
    with open_reader(file) as reader:
        return [(entry.offset, entry.end) for entry in reader.chunks]


@pytest.fixture
def no_disk(monkeypatch) -> None:
    """For a test of many files: the disk need not be waited for."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
