# SPDX-License-Identifier: Apache-2.0
"""Runs the program in this process, as the console script would."""

import subprocess
import sys
from pathlib import Path

import pytest

import vdmkit

RECIPE = """\
[data]
name = "digits"
[model.schedule]
name = "fixed_linear"
[model.prediction]
name = "eps"
[model.network]
name = "small_unet"
[optimizer]
name = "adamw"
[training]
steps = 5
batch_size = 8
"""


@pytest.fixture
def run(vdmkit_in, monkeypatch, tmp_path):
    """`run("check", "a.toml")` runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return vdmkit_in(tmp_path)


@pytest.fixture
def run_process(result_of):
    """`run_process("check", "a.toml")` runs a command in a process of its own."""

    def run_process(*arguments: str):
        root = Path(vdmkit.__file__).parents[1]
        command = [sys.executable, "-m", "vdmkit", *arguments]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        return result_of(done.returncode, done.stdout, done.stderr)

    return run_process


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A valid recipe of vdmkit's own components."""
    path = tmp_path / "a.toml"
    path.write_text(RECIPE)
    return path
