# SPDX-License-Identifier: Apache-2.0
"""`vdmkit import --list`. Imported runs are tested in tests/system/test_import.py."""

import json

import numpy as np
import pytest


@pytest.fixture
def listed(run, tmp_path) -> None:
    """Writes a.npz with three tensors."""
    arrays = {"conv.weight": np.full((2, 3), 0.5, np.float32), "n\x1b[2J": np.arange(4), "bad": np.asarray(np.inf)}
    np.savez(tmp_path / "a.npz", **arrays)


def test_every_tensor_is_listed(run, listed):
    """`vdmkit import --list` prints every tensor, with control characters escaped."""
    result = run("import", "--list", "a.npz")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "a.npz: npz, 3 tensors\n"
        "name         shape   dtype    sum\n"
        "conv.weight  (2, 3)  float32  3\n"
        "n\\x1b[2J     (4,)    int64    6\n"
        "bad          ()      float64  inf\n"
    )


def test_the_list_as_json(run, listed):
    """`vdmkit import --list --json` prints the tensors, with null for a sum that is not finite."""
    facts = json.loads(run("import", "--list", "a.npz", "--json").out)
    assert (facts["file"], facts["format"]) == ("a.npz", "npz")
    assert facts["tensors"][0] == {"name": "conv.weight", "shape": [2, 3], "dtype": "float32", "sum": 3.0}
    assert facts["tensors"][2]["sum"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--list", "none.pt"), 1, "none.pt: no such file. Formats that are read: torch"),
        (("a.npz",), 2, "-o missing: "),
        (("a.npz", "-o", "new"), 1, "a.npz: the parameters are of no family that is known"),
        (("a.npz", "--config", "c.json", "-o", "new", "--json"), 2, "--json is for --list"),
    ],
)
def test_what_is_missing_is_said(run, listed, arguments, code, words):
    """Invalid arguments of `vdmkit import` are refused with advice."""
    result = run("import", *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
