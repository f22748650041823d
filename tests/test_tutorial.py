# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
QUICK = "training.steps=3 training.batch_size=4 model.network.channels=8 evaluation.draws=2 sampling.steps=1"


@pytest.mark.system
def test_its_code_and_commands_run(tmp_path):
    """False if a reader who copies files and commands in their order met an error."""
    for name, code in re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", TUTORIAL, re.DOTALL):
        (tmp_path / name).write_text(code)
    commands = re.findall(r"^uv run (\w+) (.*)$", TUTORIAL, re.MULTILINE)
    assert len(commands) == 5
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for program, arguments in commands:
        words = arguments.split()
        if words[0] == "run":
            words += [word for key in QUICK.split() for word in ("--set", key)]
        if words[0] == "likelihood":
            words += ["--set", "likelihood.images=8", "--set", "likelihood.estimator.draws=2"]
        command = [sys.executable, "-m", program, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_files_named_exist():
    """False if it pointed to what is not there."""
    named = re.findall(r"\]\(([^)#]+)\)", TUTORIAL)
    assert named
    assert [name for name in named if not (ROOT / "docs" / name).exists()] == []
