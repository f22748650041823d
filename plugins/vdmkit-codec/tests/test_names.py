# SPDX-License-Identifier: Apache-2.0
"""Names in a compressed file that decompression must not use as paths."""

import numpy as np
import pytest
from vdmkit_codec.decoding import write_images

from vdmkit.errors import CodecError

BAD = {
    "path outside": ["/etc/a", "../a", "a/../../b"],
    "not a valid file name": ["", ".", "a\0", "\ud800", "a/" * 200 + "a", "a" * 252, ("b" * 249 + "/") * 20 + "a"],
}


@pytest.mark.parametrize(("words", "name"), [(words, name) for words, names in BAD.items() for name in names])
def test_a_name_of_no_file_is_refused(tmp_path, words, name):
    """A name that is not one of a file inside the folder raises CodecError, and nothing is written."""
    images = np.zeros((2, 2, 2, 1), np.uint8)
    with pytest.raises(CodecError, match=words):
        write_images(iter([(0, images)]), tmp_path / "out", (2, 2, 1), ["good.png", name])
    assert not list(tmp_path.iterdir())


def test_images_without_names_are_numbered(tmp_path):
    """Without names, the files are named by the numbers of the images."""
    images = np.zeros((2, 2, 2, 1), np.uint8)
    assert write_images(iter([(3, images)]), tmp_path / "out", (2, 2, 1), None) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000003.png", "000004.png"]


def test_two_images_of_a_name_are_refused(tmp_path):
    """Two names of the same file raise CodecError, because the later image would replace the earlier one."""
    images = np.zeros((2, 2, 2, 1), np.uint8)
    with pytest.raises(CodecError, match=r"'a/b\.png': two images have this name"):
        write_images(iter([(0, images)]), tmp_path / "out", (2, 2, 1), ["a/b.png", "a//b.jpg"])
    assert not list(tmp_path.iterdir())
