# SPDX-License-Identifier: Apache-2.0
"""Names that `vdmkit compress` and `vdmkit decompress` cannot write to, before any work is done."""

import pytest


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
