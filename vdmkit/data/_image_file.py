# SPDX-License-Identifier: Apache-2.0
"""Reads an image file into a uint8 array; files that would need a conversion are refused."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from vdmkit.errors import DataError
from vdmkit.io import (
    MAX_IMAGE_FILE,
    MAX_IMAGE_PIXELS,
    MAX_SCANNED_PIXELS,
    TooMuch,
    check_at_most,
    not_a_file,
    read_at_most,
)

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_CHANNELS = {"L": 1, "RGB": 3}
_JPEG_SCAN = b"\xff\xda"  # a marker, which is escaped in what is coded
_PNG_DEPTH_OFFSET = 24  # signature 8, chunk header 8, width 4, height 4


def read_image(path: Path, shape: tuple[int, int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a PNG, JPEG or WebP file of 8-bit RGB or 8-bit grey, as stored (EXIF rotation is not applied).

    Args:
        path: The file.
        shape: Expected (h, w, c); None accepts any size, with c = 3 or 1.

    Raises:
        DataError: the file cannot be read or decoded, has another size or number of channels, a palette,
            transparency, or not 8 bits per channel.
    """
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. Replace or remove it.")
    try:
        data = read_at_most(path, MAX_IMAGE_FILE)
    except (OSError, TooMuch) as error:
        raise DataError(f"{path}: cannot be read ({error}). Replace or remove it.") from error
    return decode_image(data, str(path), shape)


def decode_image(data: bytes, where: str, shape: tuple[int, int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes the contents of such a file, which messages call `where`. Raises DataError as `read_image` does."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, data)
            found, found_shape = _kind(image, data), (image.height, image.width)
            pixels = np.asarray(image) if _is_expected(found, found_shape, shape) else None
        if image.format == "PNG":
            with Image.open(io.BytesIO(data), formats=_FORMATS) as again:
                again.verify()  # its checksums, which decoding skips
    except Exception as error:  # decoders raise errors of many types on a damaged file
        reason = "it is no PNG, JPEG or WebP" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{where}: cannot be decoded as an image ({reason}). Replace or remove the file.") from error
    if pixels is None:
        height, width = found_shape
        raise DataError(
            f"{where}: {width}x{height}, {found}; expected {_expectation(shape)}. "
            "Convert the file, or give data.shape = [height, width, channels] if the other files are the odd ones."
        )
    return pixels.reshape(*found_shape, -1)


def _check_size(image: "Image.Image", data: bytes) -> None:
    """Raises TooMuch for more than memory and time are there for. Every scan of a JPEG passes over all pixels."""
    pixels = image.height * image.width
    check_at_most(MAX_IMAGE_PIXELS, pixels, "pixels")
    if image.format == "JPEG":
        check_at_most(MAX_SCANNED_PIXELS, pixels * data.count(_JPEG_SCAN), "pixels in scans")


def _kind(image: "Image.Image", data: bytes) -> str:
    """Returns the mode, and what is odd. Of an animation Pillow would give the first image alone."""
    # Pillow decodes a 16-bit RGB file to mode "RGB", dropping the low byte, so the PNG header decides.
    depth = data[_PNG_DEPTH_OFFSET] if image.format == "PNG" else 8
    count = 1 if image.format == "JPEG" else getattr(image, "n_frames", 1)
    bits, images = "" if depth == 8 else f" of {depth} bits", "" if count == 1 else f", {count} images in one"
    return f"{image.mode}{bits}{images}"


def _is_expected(kind: str, size: tuple[int, int], shape: tuple[int, int, int] | None) -> bool:
    if kind not in _CHANNELS:
        return False
    return shape is None or (*size, _CHANNELS[kind]) == shape


def _expectation(shape: tuple[int, int, int] | None) -> str:
    if shape is None:
        return "8-bit RGB or 8-bit grey (L)"
    height, width, channels = shape
    kind = "8-bit RGB" if channels == 3 else "8-bit grey (L)"
    return f"{width}x{height}, {kind}, as of data.shape or the first image"
