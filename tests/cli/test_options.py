# SPDX-License-Identifier: Apache-2.0
"""How commands are named to the user."""

import shlex
from pathlib import Path

from vdmkit.cli._options import command


def test_a_command_can_be_pasted_into_a_shell(monkeypatch):
    """The next command that a run prints would be taken for one of several words where its folder has a blank."""
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    folder = Path("my runs/it's")
    assert command("sample", "--ckpt", Path("runs/digits")) == "vdmkit sample --ckpt runs/digits"
    assert shlex.split(command("sample", "--ckpt", folder)) == ["vdmkit", "sample", "--ckpt", str(folder)]
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert command("list") == "uv run vdmkit list"
