# SPDX-License-Identifier: Apache-2.0
"""Limits on what a small untrusted file may require: it is refused before it takes memory or time."""

import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vdmkit import io as vdmkit_io
from vdmkit.data import Cifar10, Npz, cifar10
from vdmkit.data.cifar10 import read_pickle
from vdmkit.data.folder import read_image
from vdmkit.errors import VdmkitError
from vdmkit.experiments import RunFolder
from vdmkit.importers.loader import read_imported
from vdmkit.plugins import load_plugins
from vdmkit.recipes import load_recipe
from vdmkit.training.checkpoints import check_unchanged, what_is_damaged

FORM = r"needs [\d,]+ [\w' ]+, and vdmkit reads at most [\d,]+"


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            info.size = info.size or len(data)
            tar.fileobj.write(info.tobuf() + data + bytes(-len(data) % 512))
    return path


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> Callable[[Path], Any]:
    return lambda folder: Cifar10(path=str(tar_of(folder / "a.tar.gz", *members))).load("test")


def png(width: int, height: int) -> bytes:
    header, data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def many_scans(folder: Path) -> None:
    """Makes a JPEG that claims 8192 x 8192 pixels in 500 scans."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG", progressive=True)
    data, last = bytearray(file.getvalue()), file.getvalue().rindex(b"\xff\xda")
    size = data.index(b"\xff\xc2") + 5
    data[size : size + 4] = struct.pack(">HH", 2**13, 2**13)
    (folder / "a.jpg").write_bytes(data[:-2] + data[last:-2] * 500 + data[-2:])
    read_image(folder / "a.jpg")


def sparse(path: Path, size: int = 2**40) -> Path:
    """Makes a sparse file of a terabyte that takes no disk space."""
    path.touch()
    os.truncate(path, size)
    return path


def wide_image(folder: Path) -> None:
    (folder / "a.png").write_bytes(png(9_000, 9_000))
    read_image(folder / "a.png")


def squeezed_npz(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        data = io.BytesIO()
        np.save(data, np.zeros((2_000, 32, 32, 1), np.uint8))
        file.writestr("train.npy", data.getvalue())
    Npz(path=str(folder / "a.npz")).load("train")


def recipe(text: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        (folder / "a.toml").write_text(text)
        load_recipe(folder / "a.toml")

    return read


def extended(folder: Path) -> None:
    for number in range(30):
        (folder / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"')
    load_recipe(folder / "0.toml")


def text_often(folder: Path) -> None:
    text, call = b"\x8d" + struct.pack("<Q", 5_000) + b"a" * 5_000, b"h\0(h\1X\6\0\0\0latin1tR0"
    read_pickle(b"\x80\4c_codecs\nencode\nq\0" + text + b"q\1" + call * 9 + b".", "a")


BOMBS: dict[str, Callable[[Path], Any]] = {
    "tar: a file of zeros": archive((member("test_batch"), bytes(2_000_000))),
    "tar: a declared size": archive((member("test_batch", size=2**33 - 1), b"")),
    "tar: a header of zeros": archive((member("pax", size=2**33 - 1, kind=tarfile.XHDTYPE), bytes(2_000_000))),
    "tar: zeros behind its end": archive((member("a"), b""), (member("b"), bytes(2_000_000))),
    "tar: many files": archive(*((member(str(number)), b"") for number in range(1_500))),
    "pickle: many operations": lambda folder: read_pickle(b"\x80\2" + b"N0" * 2_000 + b"}.", "a"),
    "pickle: text again and again": text_often,
    "pickle: a file": lambda folder: Cifar10(path=str(sparse(folder / "test_batch").parent)).load("test"),
    "npz: zeros": squeezed_npz,
    "image: pixels": wide_image,
    "image: scans": many_scans,
    "image: a file": lambda folder: read_image(sparse(folder / "a.png")),
    "recipe: a file": lambda folder: load_recipe(sparse(folder / "a.toml")),
    "recipe: tables within tables": recipe("seed = " + "[" * 150 + "]" * 150),
    "recipe: keys": recipe("".join(f"a{number} = 1\n" for number in range(3_000))),
    "recipe: an integer": recipe("seed = 0x" + "f" * 10_000),
    "manifest: a file": lambda folder: RunFolder(sparse(folder / "manifest.json").parent).provenance(),
    "plugin: a file": lambda folder: load_plugins([sparse(folder / "a.py")]),
    "configuration: a file": lambda folder: read_imported(folder / "a.pt", sparse(folder / "a.json")),
}


@pytest.fixture
def small(monkeypatch):
    """Sets limits that a test reaches within milliseconds."""
    monkeypatch.setattr(cifar10, "MAX_UNPACKED", 1_000_000)
    monkeypatch.setattr(vdmkit_io, "FREELY_UNPACKED", 1_000_000)
    monkeypatch.setattr(cifar10, "MAX_PICKLE_OPERATIONS", 1_000)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(tmp_path, small, name):
    """A small file that expands to a huge one is refused within 50 MB of memory."""
    tracemalloc.start()
    try:
        with pytest.raises(VdmkitError, match=FORM):
            BOMBS[name](tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6


TOO_MUCH = {
    "levels of tables": recipe(".".join("a" * 20_000) + " = 1"),
    "levels of tables within": recipe(".".join(['"\\""'] * 9_000) + " = 1"),
    "bits": recipe("seed = " + "9" * 5_000),
    "extend each other": extended,
}


@pytest.mark.parametrize("words", TOO_MUCH)
def test_a_recipe_is_refused_before_it_is_parsed(tmp_path, words):
    """Excessive keys, numbers and chains of recipes are refused within 50 MB of memory."""
    tracemalloc.start()
    try:
        with pytest.raises(VdmkitError, match=f"toml: .*more .*{words}"):
            TOO_MUCH[words](tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6


def test_an_override_with_a_long_number_is_named():
    """An integer of 5,000 digits in `--set` is refused by name."""
    with pytest.raises(VdmkitError, match=r"^--set seed=9+: it has an integer"):
        load_recipe("digits", ["seed=" + "9" * 5_000])


def test_a_sparse_file_is_not_unpacked(tmp_path):
    """A sparse file in a tar archive is refused instead of expanded."""
    info = member("test_batch", 2**20, tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 2**27  # the size with its zeros, which are at the end
    header[148:156] = b"%06o\0 " % sum(header[:148], 8 * ord(" ") + sum(header[156:]))
    (tmp_path / "a.tar").write_bytes(header + bytes(2**20 + 1024))
    with pytest.raises(VdmkitError, match=r"a\.tar: .*test_batch is a sparse file"):
        Cifar10(path=str(tmp_path / "a.tar")).load("test")


def test_what_is_there_twice_is_refused(tmp_path):
    """Duplicate arrays or batches in an archive are refused."""
    twice = archive((member("test_batch"), b"1"), (member("other/test_batch"), b"2"))
    with pytest.raises(VdmkitError, match="test_batch is there twice"):
        twice(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("train.npy", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("train.npy", b"2")
    with pytest.raises(VdmkitError, match=r"'train' cannot be read .it is there twice"):
        Npz(path=str(tmp_path / "a.npz")).load("train")


@pytest.mark.parametrize("name", ["png", "webp"])
def test_an_animation_is_not_its_first_image(tmp_path, name):
    """An animation is refused rather than read as its first image."""
    first, *others = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (0, 100, 200)]
    first.save(tmp_path / f"a.{name}", save_all=True, append_images=others)
    with pytest.raises(VdmkitError, match=rf"a\.{name}: 8x8, RGB, 3 images in one; expected"):
        read_image(tmp_path / f"a.{name}")


def test_images_without_pixels_are_none(tmp_path):
    """Images without pixels are refused."""
    np.savez(tmp_path / "a.npz", train=np.zeros((5, 0, 8, 1), np.uint8))
    with pytest.raises(VdmkitError, match=r"a\.npz: .*no images"):
        Npz(path=str(tmp_path / "a.npz")).load("train")


def test_a_memo_takes_no_more_than_it_holds():
    """A large memo index takes no memory (16 GB for six bytes in Python's C unpickler)."""
    program = b"\x80\2}X\1\0\0\0aK\7r\xff\xff\xff\x7fs."
    assert read_pickle(program, "a") == {b"a": 7}


def test_an_array_has_what_its_header_claims(tmp_path):
    """An array that is shorter than its header claims is refused before memory is allocated."""
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 8, 8, 1)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("train.npy", data.getvalue() + bytes(64))
    with pytest.raises(VdmkitError, match=r"takes [\d,]+ bytes, and [\d,]+ are there"):
        Npz(path=str(tmp_path / "a.npz")).load("train")


def test_genuine_files_are_far_below(tmp_path):
    """An archive like CIFAR-10, with five batches and labels, is accepted."""
    rows = np.random.default_rng(0).integers(0, 256, (500, 3072)).astype(np.uint8)
    batch = pickle.dumps({b"data": rows, b"labels": [7] * 500}, protocol=2)
    members = [(member(f"cifar-10-batches-py/data_batch_{number}"), batch) for number in range(1, 6)]
    images = Cifar10(path=str(tar_of(tmp_path / "a.tar.gz", *members))).load("train")
    assert images.pixels.shape == (2_500, 32, 32, 3)
    np.testing.assert_array_equal(images.pixels[3], rows[3].reshape(3, 32, 32).transpose(1, 2, 0))


def test_checksums_are_those_of_a_file(tmp_path):
    """A checksums.json that is a FIFO or a folder is reported as damaged."""
    for make, words in ((os.mkfifo, "a FIFO"), (os.mkdir, "a folder")):
        folder = tmp_path / make.__name__
        folder.mkdir()
        make(folder / "checksums.json")
        assert str(what_is_damaged(folder)).startswith(f"checksums.json is {words}")


def test_a_kept_file_of_a_terabyte_has_changed(tmp_path):
    """A file of the wrong size counts as changed without being hashed."""
    with pytest.raises(VdmkitError, match=r"a\.npy: changed since the run wrote it"):
        check_unchanged(sparse(tmp_path / "a.npy"), "0", "Run the recipe again.")
