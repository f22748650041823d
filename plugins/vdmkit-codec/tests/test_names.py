# SPDX-License-Identifier: Apache-2.0
"""Names of images in a compressed file from someone else, by which decompression writes files."""

import numpy as np
import pytest
from vdmkit_codec.codec import write_images
from vdmkit_codec.container._tail import names_in, pack_names

from vdmkit.errors import CodecError

BAD = {
    "leads out": ["/etc/a", "../a", "a/../../b"],
    "not a name of a file": ["", ".", "a\0", "\ud800", "a/" * 200 + "a", "a" * 252, ("b" * 249 + "/") * 20 + "a"],
}


@pytest.mark.parametrize(("words", "name"), [(words, name) for words, names in BAD.items() for name in names])
def test_a_name_of_no_file_is_refused(tmp_path, words, name):
    """False if such a name ended in an error of Python, or a file were written elsewhere."""
    images = np.zeros((2, 2, 2, 1), np.uint8)
    with pytest.raises(CodecError, match=words):
        write_images(iter([(0, images)]), tmp_path / "out", (2, 2, 1), ["good.png", name])
    assert not list(tmp_path.iterdir())


def test_images_without_a_name_are_numbered(tmp_path):
    """False if a salvaged file of fewer names than images ended in an error of Python."""
    images = np.zeros((2, 2, 2, 1), np.uint8)
    assert write_images(iter([(0, images)]), tmp_path / "out", (2, 2, 1), ["a.png"]) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000001.png", "a.png"]


def test_a_file_has_a_name_for_each_image():
    """False if an empty list of names were taken for that of two images."""
    with pytest.raises(ValueError, match="not a list of names"):
        names_in(pack_names(b"[]"), 2)
    assert names_in(pack_names(b"[]"), 0) == []


def test_two_images_of_a_name_are_refused(tmp_path):
    """False if the first of two images were lost without a word."""
    images = np.zeros((2, 2, 2, 1), np.uint8)
    with pytest.raises(CodecError, match=r"'a/b\.png': two images of this name"):
        write_images(iter([(0, images)]), tmp_path / "out", (2, 2, 1), ["a/b.png", "a//b.jpg"])
    assert not list(tmp_path.iterdir())
