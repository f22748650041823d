# SPDX-License-Identifier: Apache-2.0
"""Files by PNG, WebP, JPEG XL, xz and brotli, each checked to give back the same pixels."""

import importlib
import io
import lzma
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

INSTALL = "not measured: needs imagecodecs: uv run --group benchmarks python lossless.py"
# Axes of values (image, row, column, channel), from the one that changes last.
ORDERS = {
    "by image": (0, 1, 2, 3),
    "by image, then channel": (0, 3, 1, 2),
    "by position": (1, 2, 3, 0),
}
Picture = UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Row:
    """Bits per value: of images each in a file of its own, and all in one file. None: not measured; `note` says why."""

    name: str
    per_image: float | None
    together: float | None
    note: str


def real_codecs(images: UInt8[np.ndarray, "n h w c"]) -> list[Row]:
    """A row for each codec. Raises RuntimeError if one gave back other pixels."""
    rows = [
        _of_pictures("PNG", images, _png, _from_pillow, "Pillow, optimize; pixels or palette, what is smaller"),
        _of_pictures("WebP lossless", images, _webp, _from_pillow, "Pillow, method 6, quality 100"),
    ]
    xz = _of_bytes("xz -9e", images, lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME), lzma.decompress)
    try:
        codecs = importlib.import_module("imagecodecs")  # of the group `benchmarks`
    except ImportError:
        return [*rows, Row("JPEG XL lossless", None, None, INSTALL), xz, Row("brotli 11", None, None, INSTALL)]

    def jxl(picture: Picture) -> bytes:
        options = {"lossless": True, "usecontainer": False}
        return min((codecs.jpegxl_encode(_plain(picture), effort=effort, **options) for effort in (7, 9)), key=len)

    def from_jxl(data: bytes, channels: int) -> Picture:
        back = codecs.jpegxl_decode(data)
        return back.reshape(*back.shape[:2], channels)

    return [
        *rows,
        _of_pictures(
            "JPEG XL lossless", images, jxl, from_jxl, "libjxl, effort 7 or 9, what is smaller; bare codestream"
        ),
        xz,
        _of_bytes("brotli 11", images, lambda raw: codecs.brotli_encode(raw, level=11), codecs.brotli_decode),
    ]


def contact_sheet(images: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "H W c"]:
    """All images in rows, about as wide as high; what is left of the last row is 0."""
    n, h, w, c = images.shape
    columns = max(1, round(math.sqrt(n * h / w)))
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, h, w, c), np.uint8)
    sheet[:n] = images
    return sheet.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def _of_pictures(
    name: str,
    images: UInt8[np.ndarray, "n h w c"],
    encode: Callable[[Picture], bytes],
    decode: Callable[[bytes, int], Picture],
    note: str,
) -> Row:
    def bits(picture: Picture) -> int:
        data = encode(picture)
        _check(name, picture, decode(data, picture.shape[-1]))
        return 8 * len(data)

    return Row(name, sum(map(bits, images)) / images.size, bits(contact_sheet(images)) / images.size, f"files: {note}")


def _of_bytes(
    name: str,
    images: UInt8[np.ndarray, "n h w c"],
    encode: Callable[[bytes], bytes],
    decode: Callable[[bytes], bytes],
) -> Row:
    bits = {}
    for order, axes in ORDERS.items():
        raw = images.transpose(axes).tobytes()
        data = encode(raw)
        _check(name, np.frombuffer(raw, np.uint8), np.frombuffer(decode(data), np.uint8))
        bits[order] = 8 * len(data)
    best = min(bits, key=lambda order: bits[order])
    return Row(name, None, bits[best] / images.size, f"files: values {best}, the shortest order of {len(ORDERS)}")


def _check(name: str, given: UInt8[np.ndarray, "..."], back: UInt8[np.ndarray, "..."]) -> None:
    if not np.array_equal(given, back):
        raise RuntimeError(f"{name}: other pixels came back, so its size is not a lossless rate. Try another version.")


def _plain(picture: Picture) -> UInt8[np.ndarray, "..."]:
    """Without the channel axis if there is one channel."""
    return np.ascontiguousarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def _saved(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def _from_pillow(data: bytes, channels: int) -> Picture:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., :channels]


def _png(picture: Picture) -> bytes:
    pixels = _saved(Image.fromarray(_plain(picture)), format="PNG", optimize=True)
    colours, index = np.unique(picture.reshape(-1, picture.shape[-1]), axis=0, return_inverse=True)
    if len(colours) > 256:
        return pixels
    indexed = Image.fromarray(index.reshape(picture.shape[:2]).astype(np.uint8)).convert("P")
    indexed.putpalette(np.broadcast_to(colours, (len(colours), 3)).tobytes())
    depth = next(bits for bits in (1, 2, 4, 8) if len(colours) <= 1 << bits)
    return min(pixels, _saved(indexed, format="PNG", optimize=True, bits=depth), key=len)


def _webp(picture: Picture) -> bytes:
    return _saved(Image.fromarray(_plain(picture)), format="WEBP", lossless=True, method=6, quality=100)
