# SPDX-License-Identifier: Apache-2.0
"""Kills at random moments under a seed: the same command goes on, and ends bit for bit as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vdmkit.checkpoint import steps_in

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "system" / "tiny.py"


def start(folder: Path, cache: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "vdmkit", *arguments, "--plugin", str(PLUGIN)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def ended(run: Path) -> dict[str, bytes]:
    """Returns every array of the last checkpoint, read without vdmkit's own reader, and the results of the run."""
    state = run / "checkpoints" / str(steps_in(run / "checkpoints")[-1]) / "state"
    reader = ocp.PyTreeCheckpointer()
    tree = reader.metadata(state.resolve()).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    leaves = jax.tree_util.tree_leaves_with_path(reader.restore(state.resolve(), restore_args=as_numpy))
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    assert len(arrays) > 5
    return arrays | {name: (run / name).read_bytes() for name in ("evaluation.json", "samples.png")}


@pytest.mark.slow
def test_kills(tmp_path, tiny, chosen):
    """False if SIGKILL or SIGTERM at some moment changed the model, lost the run, or left it unable to go on."""
    cache, rng, killed = tmp_path / "cache", random.Random(chosen.seed), []
    words = ("run", tiny, "--out")
    _, err = (first := start(tmp_path, cache, *words, "never")).communicate()
    assert first.returncode == 0, err
    while len(killed) < chosen.cases(50):
        process, wait, how = start(tmp_path, cache, *words, "run"), rng.uniform(2, 15), rng.choice(["KILL", "TERM"])
        try:
            _, err = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.Signals[f"SIG{how}"])
            _, err = process.communicate()
            killed.append((how, round(wait, 1), process.returncode))
            assert "Traceback" not in err, (chosen.seed, killed[-1], err)
            assert process.returncode in ((-9, 0) if how == "KILL" else (3, 0, -15)), (chosen.seed, killed[-1], err)
        else:
            assert process.returncode == 0, (chosen.seed, killed, err)
            assert ended(tmp_path / "run") == ended(tmp_path / "never"), (chosen.seed, killed)
            shutil.rmtree(tmp_path / "run")
    _, err = (last := start(tmp_path, cache, *words, "run")).communicate()
    assert last.returncode == 0, err
    assert ended(tmp_path / "run") == ended(tmp_path / "never"), (chosen.seed, killed)
    print(f"{len(killed)} kills, seed {chosen.seed}: {killed}")
