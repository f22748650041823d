# SPDX-License-Identifier: Apache-2.0
"""Image files: the source `Folder`, lists of files given by the user, and decoding.

Files that would need a conversion are refused.
"""

import functools
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import UInt8
from numpy.lib.format import write_array_header_1_0

from vdmkit.data.sources import AbstractSource, Images, Split, identified
from vdmkit.errors import DataError
from vdmkit.io import (
    MAX_IMAGE_FILE,
    MAX_IMAGE_PIXELS,
    MAX_SCANNED_PIXELS,
    TooMuch,
    cache_folder,
    check_at_most,
    is_own_file,
    not_a_file,
    not_a_folder,
    read_at_most,
    whole_file,
)
from vdmkit.registry import register

if TYPE_CHECKING:
    from PIL import Image

Side = Annotated[int, Ge(1), Le(16_384)]
Channels = Annotated[int, Ge(1), Le(3)]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_EXPECTED = f"Expected a folder, a file that ends in {', '.join(_SUFFIXES)}, or one .npy and nothing else."
_FORMATS = ("PNG", "JPEG", "WEBP")
_CHANNELS = {"L": 1, "RGB": 3}
_JPEG_SCAN = b"\xff\xda"  # marker of a scan; bytes of entropy-coded data are escaped so that they never match
_PNG_DEPTH_OFFSET = 24  # signature 8, chunk header 8, width 4, height 4


@register("data", "folder")
class Folder(AbstractSource):
    """A folder of PNG, JPEG or WebP images of one size for each split, in the order of their names.

    Files in sub-folders are included, sorted by their path in the folder; files of other types are skipped.
    Images are decoded once, into a file in the cache folder that is then memory-mapped.

    Args:
        train: Folder of training images.
        test: Folder of test images.
        shape: (height, width, channels), channels 3 (8-bit RGB) or 1 (8-bit grey). By default the shape of the first
            image of `train`. If it is given, a recipe can be checked without the data.
    """

    def __init__(self, *, train: str, test: str, shape: tuple[Side, Side, Channels] | None = None) -> None:
        if shape is not None and (min(shape) < 1 or shape[2] not in (1, 3)):
            raise DataError(f"data.shape = {list(shape)}: expected [height, width, channels], channels 1 or 3.")
        self.folders: dict[Split, Path] = {"train": Path(train).expanduser(), "test": Path(test).expanduser()}
        self._shape = shape

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape or self._shape_of_first

    @functools.cached_property
    def _shape_of_first(self) -> tuple[int, int, int]:
        folder = self.folders["train"]
        return read_image(folder / _names(folder)[0]).shape

    @property
    def levels(self) -> int:
        return 256

    def locate(self) -> str:
        for folder in self.folders.values():
            for name in _names(folder):
                _check_file(folder / name)
        return ""

    def load(self, split: Split) -> Images:
        folder, shape = self.folders[split], self.shape
        names = _names(folder)
        cached = cache_folder() / f"images-{_cache_key(folder, names, shape)}.npy"
        if not is_own_file(cached):
            _decode(folder, names, shape, cached)
        try:
            pixels = np.load(cached, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{cached}: cached images are damaged ({error}). Delete this file and run again."
            ) from error
        return identified(pixels, self.levels, name=_name(folder, split), split=split)


def _name(folder: Path, split: Split) -> str:
    """Returns a name for the images: the folder's, or its parent's if the folder is named after the split."""
    parent = folder.absolute().parent.name
    if folder.name not in ("train", "test") or not parent:
        return folder.name
    return parent if folder.name == split else f"{parent}[{folder.name}]"


def _names(folder: Path) -> list[str]:
    """Returns the paths of all image files relative to `folder`, sorted. Raises DataError if there are none."""
    if reason := not_a_folder(folder):
        raise DataError(f"{folder}: {reason}. Set data.train and data.test to folders of images.")
    names = sorted(os.path.relpath(file, folder) for file in _files(folder) if file.lower().endswith(_SUFFIXES))
    if not names:
        raise DataError(f"{folder}: no images in it, expected files ending in {', '.join(_SUFFIXES)}.")
    return names


def _files(folder: Path) -> Iterator[str]:
    """Yields all files in a folder and its sub-folders, following links; a folder reached twice is refused."""

    def unreadable(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}). Its images would be missing.") from error

    seen: dict[tuple[int, int], str] = {}
    for parent, _, files in os.walk(folder, followlinks=True, onerror=unreadable):
        stat = os.stat(parent)
        first = seen.setdefault((stat.st_dev, stat.st_ino), parent)
        if first != parent:
            raise DataError(
                f"{parent}: the same folder as {first}, by a link: each of its images would count twice. "
                "Remove the link."
            )
        yield from (os.path.join(parent, file) for file in files)


def _cache_key(folder: Path, names: list[str], shape: tuple[int, int, int]) -> str:
    """Returns a key for the decoded images, which depends on every file's path, size and times.

    The contents are not read, because that takes minutes for a million small files, and reading the sizes seconds.
    """
    digest = hashlib.sha256(f"{folder.resolve()}\0{shape}".encode(errors="surrogateescape"))
    for name in names:
        _check_file(folder / name)
        stat = (folder / name).stat()
        facts = f"\0{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
        digest.update(facts.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _check_file(path: Path) -> None:
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. Replace or remove it.")


def _decode(folder: Path, names: list[str], shape: tuple[int, int, int], path: Path) -> None:
    """Writes all images as one .npy file. No memory map is used, because a full disk would then kill the process."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    with cached_file(path) as part, part.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), *shape)}
        write_array_header_1_0(file, header)
        for name in track(names, f"decoding {folder}", console=console, transient=True):
            file.write(read_image(folder / name, shape).tobytes())


@contextmanager
def cached_file(path: Path) -> Iterator[Path]:
    """Like `whole_file`, for a path in the cache folder. Raises DataError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            yield part
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error}). Free some space, or set VDMKIT_CACHE to another folder."
        ) from error


@dataclass(frozen=True)
class ImageList:
    """Images of one shape, given by the user and read on demand.

    Args:
        shape: (h, w, c) of every image.
        names: Names of the files, or None for an array.
        paths: The files.
        passed_over: Number of skipped files that are not images, and of skipped links to folders.
        array: The images, if they are given as an array.
    """

    shape: tuple[int, int, int]
    names: list[str] | None
    paths: list[Path]
    array: UInt8[np.ndarray, "n h w c"] | None = None
    passed_over: int = 0

    def __len__(self) -> int:
        return len(self.paths) if self.array is None else len(self.array)

    @property
    def bytes(self) -> int:
        """Returns the size in bytes of the files or of the array."""
        return sum(path.stat().st_size for path in self.paths) if self.array is None else self.array.nbytes

    def read(self, start: int, stop: int) -> UInt8[np.ndarray, "n h w c"]:
        """Returns images start, ..., stop - 1. Raises DataError if a file is not an image of this shape."""
        if self.array is not None:
            return np.asarray(self.array[start:stop])
        images = [read_image(path, self.shape) for path in self.paths[start:stop]]
        return np.asarray(images, np.uint8).reshape(-1, *self.shape)


def list_images(given: Sequence[Path], shape: tuple[int, int, int]) -> ImageList:
    """Lists the images at the paths: one .npy of uint8 (n, h, w, c), or files and folders, which are sorted by name.

    Raises:
        DataError: a path is something else, an array has a different shape, or two files have the same name.
        OSError: a folder cannot be read.
    """
    if len(given) == 1 and given[0].suffix == ".npy":
        return ImageList(shape, None, [], _array(given[0], shape))
    paths, names, passed_over = [], [], 0
    for path in given:
        found, others = _listed(path)
        passed_over += others
        paths += found
        names += [os.path.relpath(file, path if path.is_dir() else path.parent) for file in found]
    doubled = [name for name, count in Counter(str(Path(name).with_suffix("")) for name in names).items() if count > 1]
    if doubled:
        raise DataError(f"{doubled[0]}: two images of this name. Compress them into two files.")
    return ImageList(shape, names, paths, passed_over=passed_over)


def _listed(path: Path) -> tuple[list[Path], int]:
    """Returns the image files, and the number of other files."""
    if path.is_dir():
        found = sorted(_in_folder(path))
    elif reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. {_EXPECTED}")
    elif path.suffix.lower() in _SUFFIXES:
        return [path], 0
    else:
        raise DataError(f"{path}: not a file of an image. {_EXPECTED}")
    images = [file for file in found if file.suffix.lower() in _SUFFIXES and not file.is_dir()]
    return images, len(found) - len(images)


def _in_folder(path: Path) -> Iterator[Path]:
    """Yields files, and links to folders, which are not followed because they may form a cycle."""

    def unreadable(error: OSError) -> NoReturn:  # by default `os.walk` skips a folder that it cannot read
        raise error

    for parent, folders, files in os.walk(path, onerror=unreadable):
        yield from (Path(parent) / file for file in files)
        yield from (link for folder in folders if (link := Path(parent) / folder).is_symlink())


def _array(path: Path, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "n h w c"]:
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. {_EXPECTED}")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header raises errors of many types
        raise DataError(f"{path}: cannot be read as an array ({error}). Save it again with numpy.save.") from error
    if array.dtype != np.uint8 or array.shape[1:] != shape or array.ndim != 4:
        expected = ", ".join(map(str, shape))
        raise DataError(f"{path}: {array.dtype} {array.shape}; expected uint8 (n, {expected}), as the model's images.")
    return array


def read_image(path: Path, shape: tuple[int, int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a PNG, JPEG or WebP file of 8-bit RGB or 8-bit grey, as stored (EXIF rotation is not applied).

    Args:
        path: The file.
        shape: Expected (h, w, c); None accepts any size, with c = 3 or 1.

    Raises:
        DataError: the file cannot be read or decoded, has a different size or number of channels, a palette,
            transparency, or not 8 bits per channel.
    """
    _check_file(path)
    try:
        data = read_at_most(path, MAX_IMAGE_FILE)
    except (OSError, TooMuch) as error:
        raise DataError(f"{path}: cannot be read ({error}). Replace or remove it.") from error
    return decode_image(data, str(path), shape)


def decode_image(data: bytes, where: str, shape: tuple[int, int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes the contents of an image file, called `where` in messages. Raises DataError as `read_image` does."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, data)
            found, size = _kind(image, data), (image.height, image.width)
            expected = found in _CHANNELS and (shape is None or (*size, _CHANNELS[found]) == shape)
            pixels = np.asarray(image) if expected else None
        if image.format == "PNG":
            with Image.open(io.BytesIO(data), formats=_FORMATS) as again:
                again.verify()  # checks the checksums, which decoding skips
    except Exception as error:  # decoders raise errors of many types on a damaged file
        reason = "it is no PNG, JPEG or WebP" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{where}: cannot be decoded as an image ({reason}). Replace or remove the file.") from error
    if pixels is None:
        raise DataError(
            f"{where}: {size[1]}x{size[0]}, {found}; expected {_expectation(shape)}. "
            "Convert the file, or give data.shape = [height, width, channels] if the other files are the odd ones."
        )
    return pixels.reshape(*size, -1)


def _check_size(image: "Image.Image", data: bytes) -> None:
    """Raises TooMuch for more pixels than memory and time allow. A JPEG decoder visits all pixels in every scan."""
    pixels = image.height * image.width
    check_at_most(MAX_IMAGE_PIXELS, pixels, "pixels")
    if image.format == "JPEG":
        check_at_most(MAX_SCANNED_PIXELS, pixels * data.count(_JPEG_SCAN), "pixels in scans")


def _kind(image: "Image.Image", data: bytes) -> str:
    """Returns the mode, with the depth and the number of images if unusual. Pillow decodes the first frame only."""
    # Pillow decodes a 16-bit RGB file to mode "RGB", dropping the low byte, so the PNG header decides.
    depth = data[_PNG_DEPTH_OFFSET] if image.format == "PNG" else 8
    count = 1 if image.format == "JPEG" else getattr(image, "n_frames", 1)
    bits, images = "" if depth == 8 else f" of {depth} bits", "" if count == 1 else f", {count} images in one"
    return f"{image.mode}{bits}{images}"


def _expectation(shape: tuple[int, int, int] | None) -> str:
    if shape is None:
        return "8-bit RGB or 8-bit grey (L)"
    height, width, channels = shape
    kind = "8-bit RGB" if channels == 3 else "8-bit grey (L)"
    return f"{width}x{height}, {kind}, as of data.shape or the first image"
