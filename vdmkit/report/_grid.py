# SPDX-License-Identifier: Apache-2.0
"""Pictures of images: grids of samples, alone or beside real ones."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Real, UInt8
from PIL import Image

from vdmkit.io import whole_file

_SMALLEST_TILE = 32  # pixels; smaller images are enlarged by an integer factor
_WHITE = 255


def grid(images: Real[np.ndarray, "n h w c"], levels: int) -> UInt8[np.ndarray, "H W c"]:
    """Arranges images of levels 0..V-1, or of [-1, 1] if levels = 0, in a nearly square grid on white."""
    values = images.astype(np.float64)
    shares = values / (levels - 1) if levels else np.clip((values + 1) / 2, 0, 1)
    images = (255 * shares).round().astype(np.uint8)
    n, height, width, channels = images.shape
    factor = max(1, math.ceil(_SMALLEST_TILE / max(height, width)))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    gap = 2
    picture = np.full(
        (rows * (height * factor + gap) - gap, columns * (width * factor + gap) - gap, channels), _WHITE, np.uint8
    )
    for i, tile in enumerate(images):
        top, left = (i // columns) * (height * factor + gap), (i % columns) * (width * factor + gap)
        picture[top : top + height * factor, left : left + width * factor] = tile
    return picture


def beside(left: UInt8[np.ndarray, "H W c"], right: UInt8[np.ndarray, "H W c"]) -> UInt8[np.ndarray, "H W2 c"]:
    """Joins two pictures of the same height, with a white strip between them."""
    strip = np.full((left.shape[0], _SMALLEST_TILE, left.shape[2]), _WHITE, np.uint8)
    return np.concatenate([left, strip, right], axis=1)


def write_png(picture: UInt8[np.ndarray, "H W c"], path: Path) -> None:
    """Writes a picture atomically: one channel as grey, three as RGB."""
    with whole_file(path) as part:
        Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(part, format="PNG")
