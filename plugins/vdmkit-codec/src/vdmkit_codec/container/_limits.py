# SPDX-License-Identifier: Apache-2.0
"""What a file may ask of its reader, whatever its checksums say."""

from dataclasses import dataclass
from math import prod
from typing import Any

from vdmkit.errors import CodecError

MAX_PIXELS = 1 << 26  # values in a chunk, which is held in memory
_MOST = 65535  # images in a chunk or a group


@dataclass(frozen=True)
class Limits:
    """Limits of a file.

    Args:
        chunk: Largest number of images in a chunk, as the header has it.
        group: Largest number of images in a group.
        values: Number of values in an image.
        max_pixels: Largest number of values in a chunk.
    """

    chunk: int
    group: int
    values: int
    max_pixels: int = MAX_PIXELS

    def check_images(self, title: str, images: int) -> None:
        """Raises CodecError if a chunk has more images than it may."""
        if images > self.chunk:
            raise CodecError(f"{title} has {images:,} images, and its header allows {self.chunk:,}")
        if images * self.values > self.max_pixels:
            raise CodecError(
                f"{title} has {images * self.values:,} pixels, more than {self.max_pixels:,}. If you trust the file: "
                f"--max-pixels {images * self.values}"
            )


def limits_of(header: dict[str, Any], max_pixels: int = MAX_PIXELS) -> Limits:
    """Returns the limits in a header; fields that are not valid are as if they were not there."""
    shape = header.get("shape")
    valid = isinstance(shape, list) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape)
    values = prod(shape) if valid and shape else 1
    return Limits(_count(header.get("chunk")), _count(header.get("group")), values, max_pixels)


def _count(value: Any) -> int:
    return value if type(value) is int and 1 <= value <= _MOST else _MOST
