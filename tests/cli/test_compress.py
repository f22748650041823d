# SPDX-License-Identifier: Apache-2.0
"""Names that `vdmkit compress` and `vdmkit decompress` cannot write to, before any work is done."""

from pathlib import Path

import numpy as np
import pytest

from vdmkit.cli import _compress
from vdmkit.codec import Compressed
from vdmkit.errors import DataError


def test_a_folder_of_the_name_is_refused_before_the_work(run, tmp_path):
    """Otherwise hours of coding end with a file that cannot be given its name."""
    (tmp_path / "x.vdmz").mkdir()
    result = run("compress", "a.npy", "--ckpt", "run", "-o", str(tmp_path / "x.vdmz"))
    assert (result.code, "x.vdmz: is a folder" in result.err) == (2, True)


@pytest.mark.parametrize("output", [".", "./", "/"])
def test_a_folder_without_a_name_is_refused(run, output):
    """Otherwise `-o .` in an empty folder is called a defect."""
    result = run("decompress", "a.vdmz", "--ckpt", "run", "-o", output)
    assert (result.code, "expected the name of a new folder" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("levels", "reason"),
    [((), "there are no images"), ((216,), r"a pixel is 216: expected 0\.\.16"), ((216, 17), "a pixel is 216")],
)
def test_images_of_another_scale_are_the_users_mistake(levels, reason):
    """False if pixels that the model does not know were called the model's defect, or no images vdmkit's."""
    images = np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 8, 8, 1), np.uint8)
    with pytest.raises(DataError, match=rf"^a\.npy: {reason}"):
        _compress._known([Path("a.npy")], images, 17)


def test_one_image_of_another_scale_is_not_refused():
    """False if an image that would be stored as it is made a whole list impossible to compress."""
    images = np.array([216, 16], np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(_compress._known([Path("a.npy")], images, 17), images[1:])


def test_a_file_larger_than_the_images_says_so():
    """False if compression that makes a few images larger passed without a word."""
    larger, smaller = (Compressed(1, 0, 1303, given, 162.9, 4.1, 32.0, "T = 3 steps") for given in (64, 2000))
    assert str(larger).startswith("1 image in 1,303 bytes")
    assert str(larger).endswith("\nlarger than the images as they were given, in 64 bytes")
    assert "larger" not in str(smaller)
