# SPDX-License-Identifier: Apache-2.0
"""A disk that is full while a file is written."""

import os

import pytest
from vdmkit_codec.container import open_writer


def test_a_full_disk_says_which_file(tmp_path, monkeypatch):
    """Otherwise the message is `vdmkit: No space left on device`."""

    def full(descriptor, data, start):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    path = tmp_path / "a.vdmz"
    with pytest.raises(OSError, match="No space left") as raised, open_writer(path, {}, resume=False):
        pass
    assert raised.value.filename == str(tmp_path / "a.vdmz.part")
