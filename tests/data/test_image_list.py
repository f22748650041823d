# SPDX-License-Identifier: Apache-2.0
"""Images that a user names."""

import os

import numpy as np
import pytest
from PIL import Image

from vdmkit.data.folder import list_images

SHAPE = (6, 5, 1)


@pytest.fixture
def folder(tmp_path):
    """One image in it, and one in a folder of it."""
    for name in ("in/a.png", "in/deep/b.png", "elsewhere/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros(SHAPE[:2], np.uint8)).save(tmp_path / name)
    return tmp_path / "in"


def test_a_link_to_a_folder_is_counted(folder):
    """Links to folders are counted among the skipped files."""
    (folder / "link").symlink_to("../elsewhere")
    (folder / "link.png").symlink_to("../elsewhere")
    found = list_images([folder], SHAPE)
    assert (found.names, found.passed_over) == (["a.png", "deep/b.png"], 2)


def test_a_folder_that_cannot_be_read_is_an_error(folder, monkeypatch):
    """An unreadable folder raises OSError, unlike in `os.walk`."""

    def scandir(path, scan=os.scandir):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        list_images([folder], SHAPE)
