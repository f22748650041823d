# SPDX-License-Identifier: Apache-2.0
"""Pictures hold exactly the images they are made of."""

import math

import numpy as np
import pytest
from PIL import Image

from vdmkit.report import grid, write_png
from vdmkit.report.charts import side_by_side

GAP, STRIP, WHITE = 2, 32, 255


def images(n: int, size: int, channels: int, levels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, levels, (n, size, size, channels)).astype(np.uint8)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 16])
@pytest.mark.parametrize(("size", "channels", "levels"), [(8, 1, 17), (8, 3, 256), (40, 3, 2)])
def test_a_grid_shows_every_image_and_nothing_else(n, size, channels, levels):
    """Every pixel of every image is one square of its brightness; the rest is white."""
    given = images(n, size, channels, levels)
    factor = max(1, math.ceil(32 / size))
    tile, columns = size * factor, math.ceil(math.sqrt(n))
    picture = grid(given, levels)
    assert picture.shape[1:] == (columns * (tile + GAP) - GAP, channels)
    left = picture.copy()
    for i, image in enumerate(given):
        y, x = (i // columns) * (tile + GAP), (i % columns) * (tile + GAP)
        shown = picture[y : y + tile, x : x + tile]
        blocks = shown.reshape(size, factor, size, factor, channels)
        assert (blocks == blocks[:, :1, :, :1]).all(), "every pixel is one square of one colour"
        np.testing.assert_array_equal(blocks[:, 0, :, 0], np.round(image * (255 / (levels - 1))))
        left[y : y + tile, x : x + tile] = WHITE
    assert (left == WHITE).all()


def test_two_pictures_side_by_side():
    """Both pictures are unchanged, with a white strip between them."""
    left, right = grid(images(4, 8, 3, 256), 256), grid(images(3, 8, 3, 256), 256)
    picture = side_by_side(left, right)
    width = left.shape[1]
    np.testing.assert_array_equal(picture[:, :width], left)
    np.testing.assert_array_equal(picture[:, width + STRIP :], right)
    assert (picture[:, width : width + STRIP] == WHITE).all()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_png_is_read_back_as_it_was(tmp_path, channels, mode):
    """A PNG holds exactly the pixels of the picture."""
    picture = grid(images(4, 8, channels, 256), 256)
    write_png(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        assert (file.mode, file.format) == (mode, "PNG")
        np.testing.assert_array_equal(np.asarray(file).reshape(picture.shape), picture)
