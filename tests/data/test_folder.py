# SPDX-License-Identifier: Apache-2.0
"""Folders of images."""

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdmkit.data import Folder
from vdmkit.errors import DataError


def _pixels(n: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 6, 5, channels)).astype(np.uint8)


def _write(folder: Path, pixels: np.ndarray, suffix: str = ".png") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for number, image in enumerate(pixels):
        Image.fromarray(image.squeeze()).save(folder / f"{number:03}{suffix}", lossless=True)
    return folder


def _source(folder: Path, shape: tuple[int, int, int] | None = None) -> Folder:
    return Folder(train=str(folder), test=str(folder), shape=shape)


def _save_16_bit_rgb(path: Path) -> None:
    """Pillow cannot write such a file, and reads it as 8-bit RGB without a word."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    data = zlib.compress(6 * (b"\0" + bytes(5 * 6)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def _save_mode(mode: str) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (5, 6)).save(path)


ODD_FILES: dict[str, Callable[[Path], object]] = {
    "another size": lambda path: Image.new("RGB", (6, 5)).save(path),
    "grey": _save_mode("L"),
    "grey with alpha": _save_mode("LA"),
    "alpha": _save_mode("RGBA"),
    "palette": _save_mode("P"),
    "black and white": _save_mode("1"),
    "16-bit grey": _save_mode("I;16"),
    "16-bit RGB": _save_16_bit_rgb,
    "CMYK": lambda path: Image.new("CMYK", (5, 6)).save(path, "JPEG"),
    "GIF": lambda path: Image.new("RGB", (5, 6)).save(path, "GIF"),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "truncated": lambda path: path.write_bytes(path.with_name("000.png").read_bytes()[:60]),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "FIFO": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 3), (".png", 1), (".webp", 3), (".PNG", 3)])
def test_pixels_are_those_saved_in_order_of_names(suffix: str, channels: int, tmp_path: Path) -> None:
    """Decoding is exact, and the order is that of the names."""
    pixels = _pixels(12, channels)
    folder = tmp_path / "images"
    for number in reversed(range(12)):
        _write(folder / "x", pixels[number : number + 1], suffix)
        os.rename(folder / "x" / f"000{suffix}", folder / f"{number:03}{suffix}")
    (folder / "README.txt").write_text("not an image")
    source = _source(folder)
    images = source.load("test")
    np.testing.assert_array_equal(images.pixels, pixels)
    assert (source.shape, images.identity.name, images.identity.published) == ((6, 5, channels), "images", None)


def test_jpeg_is_decoded_by_pillow(tmp_path: Path) -> None:
    """JPEG files have the pixels that Pillow decodes."""
    folder = _write(tmp_path / "images", _pixels(1), ".jpg")
    with Image.open(folder / "000.jpg") as image:
        np.testing.assert_array_equal(_source(folder).load("train").pixels[0], np.asarray(image))


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_is_named_and_nothing_is_cached(name: str, tmp_path: Path, cache: Path) -> None:
    """A file that would need a conversion raises DataError and leaves no cache file."""
    folder = _write(tmp_path / "images", _pixels(2))
    ODD_FILES[name](folder / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png: "):
        _source(folder).load("train")
    assert not cache.exists() or not list(cache.iterdir())


def test_shape_of_the_recipe_is_held_against_the_first_image_too(tmp_path: Path) -> None:
    """A declared shape is checked against all images, the first included."""
    folder = _write(tmp_path / "images", _pixels(2))
    with pytest.raises(DataError, match=r"000\.png: 5x6, RGB; expected 5x6, 8-bit grey"):
        _source(folder, (6, 5, 1)).load("train")
    with pytest.raises(DataError, match="channels 1 or 3"):
        _source(folder, (6, 5, 4))


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    """The message names the missing or empty folder."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nowhere: no such folder"):
        _source(tmp_path / "nowhere").load("train")
    with pytest.raises(DataError, match="empty: no images"):
        _source(tmp_path / "empty", (6, 5, 3)).load("train")


@pytest.mark.parametrize("target", [".", "../images", "a"])
def test_a_folder_is_not_taken_twice(tmp_path: Path, target: str) -> None:
    """A link to a folder that is read already is refused."""
    folder = tmp_path / "images"
    _write(folder / "a", _pixels(2))
    (folder / "link").symlink_to(target)
    with pytest.raises(DataError, match=r"the same folder as .*each of its images would count twice"):
        _source(folder).load("train")


def test_links_to_other_folders_are_followed(tmp_path: Path) -> None:
    """Images behind a link are included."""
    _write(tmp_path / "elsewhere", _pixels(2))
    folder = _write(tmp_path / "images", _pixels(1))
    (folder / "link").symlink_to("../elsewhere")
    assert len(_source(folder).load("train").pixels) == 3


def test_images_are_decoded_once_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start reads the cache; a changed file is decoded again."""
    folder = _write(tmp_path / "images", _pixels(3))
    before = _source(folder, (6, 5, 3)).load("train").identity
    with monkeypatch.context() as patch:
        patch.setattr("vdmkit.data.folder.read_image", None)
        assert _source(folder, (6, 5, 3)).load("train").identity == before
    _write(folder, 255 - _pixels(3)[:1])
    after = _source(folder, (6, 5, 3)).load("train")
    assert after.identity.sha256 != before.sha256
    np.testing.assert_array_equal(after.pixels[0], 255 - _pixels(3)[0])


def test_a_file_of_another_user_in_the_cache_is_not_believed(tmp_path, cache, monkeypatch) -> None:
    """Cache files of other users are ignored."""
    folder = _write(tmp_path / "images", _pixels(3))
    _source(folder).load("train")
    (cached,) = cache.iterdir()
    np.save(cached, 255 - _pixels(3))
    assert (_source(folder).load("train").pixels == 255 - _pixels(3)).all(), "the cache is read"
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        np.testing.assert_array_equal(_source(folder).load("train").pixels, _pixels(3))


def test_a_full_disk_is_one_clear_error(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be written raises DataError and leaves no partial file."""

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = _write(tmp_path / "images", _pixels(3))
    monkeypatch.setattr("vdmkit.data.folder.write_array_header_1_0", full)
    with pytest.raises(DataError, match=r"No space left on device.*VDMKIT_CACHE"):
        _source(folder).load("train")
    assert not list(cache.iterdir())
    monkeypatch.setenv("VDMKIT_CACHE", str(folder / "000.png" / "cache"))
    with pytest.raises(DataError, match="VDMKIT_CACHE"):
        _source(folder).load("train")


def test_a_damaged_cache_is_named(tmp_path: Path, cache: Path) -> None:
    """A truncated cache file raises DataError with its name."""
    folder = _write(tmp_path / "images", _pixels(3))
    _source(folder).load("train")
    (cached,) = cache.iterdir()
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{cached.name}.*Delete this file"):
        _source(folder).load("train")


@pytest.mark.parametrize(
    ("folder", "name"), [("mine/test", "mine"), ("mine/train", "mine[train]"), ("flowers", "flowers")]
)
def test_a_folder_s_images_are_called_so_that_one_knows_which(tmp_path, folder, name):
    """The name of the images is not the name of the split."""
    _write(tmp_path / folder, _pixels(2))
    identity = _source(tmp_path / folder).load("test").identity
    assert (identity.name, identity.split) == (name, "test")
