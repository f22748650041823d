# SPDX-License-Identifier: Apache-2.0
"""Wheels in an environment of their own: vdmkit without the plugin, and then with it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[4]
QUICK = "training.steps=2 training.batch_size=4 model.network.channels=8 evaluation.draws=2 sampling.steps=1"


@pytest.mark.slow  # it builds wheels and installs everything, from uv's cache where that has it
def test_vdmkit_without_the_plugin_and_with_it(tmp_path) -> None:
    """vdmkit works without the plugin, names it for a missing command, and finds it once it is installed."""
    uv = {"check": True, "capture_output": True, "cwd": ROOT}
    for package in ("vdmkit", "vdmkit-codec"):
        subprocess.run(["uv", "build", "--wheel", "--package", package, "--out-dir", tmp_path], **uv)
    core, plugin = (next(tmp_path.glob(f"{name}-*.whl")) for name in ("vdmkit", "vdmkit_codec"))
    subprocess.run(["uv", "venv", "--python", sys.executable, tmp_path / "venv"], **uv)
    install = ["uv", "pip", "install", "-c", "constraints.txt", "--python", tmp_path / "venv/bin/python"]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def program(*arguments: str) -> subprocess.CompletedProcess:
        command = [tmp_path / "venv/bin/vdmkit", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    subprocess.run([*install, core], **uv)
    assert program("run", "digits", "--out", "run", *(f"--set={key}" for key in QUICK.split())).returncode == 0
    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1)).astype(np.uint8)
    np.save(tmp_path / "a.npy", images)
    compress = ("compress", "a.npy", "-o", "a.vdmz", "--ckpt", "run", "--steps", "2")
    refused = program(*compress)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(
        "vdmkit compress: is a command of the plugin vdmkit-codec, which is not installed."
    )
    assert "compress" not in program("--help").stdout
    subprocess.run([*install, plugin], **uv)
    for command in (compress, ("decompress", "a.vdmz", "-o", "b.npy", "--ckpt", "run")):
        done = program(*command)
        assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), images)
