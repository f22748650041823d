# SPDX-License-Identifier: Apache-2.0
"""The wheel alone, in an empty folder, works like a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vdmkit
from vdmkit.recipes import shipped_recipes

ROOT = Path(vdmkit.__file__).parents[1]
QUICK = "training.steps=3 training.batch_size=4 model.network.channels=8 evaluation.draws=2 sampling.steps=1"


@pytest.mark.slow  # builds the wheel, for which uv downloads hatchling
def test_its_recipes_run_by_name(tmp_path):
    """The wheel, built from the source distribution, contains the recipes and can run them by name."""
    subprocess.run(["uv", "build", "--quiet", "--out-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    inside = tmp_path / "site" / "vdmkit" / "recipes"
    files = {f"{name}.toml": path.read_bytes() for name, path in shipped_recipes().items()}
    assert {path.relative_to(inside).as_posix(): path.read_bytes() for path in inside.rglob("*.toml")} == files
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "vdmkit", "run", "digits"]
    command += [word for key in QUICK.split() for word in ("--set", key)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "empty/runs/digits/recipe.toml").read_bytes() == (inside / "digits.toml").read_bytes()
