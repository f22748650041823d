# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at any moment, then the same command: the run ends bit for bit as if nothing had happened."""

import random
import subprocess
from pathlib import Path

import pytest

import vdmkit

ROOT = Path(vdmkit.__file__).parents[1]
BEGINNING = [
    r"os.rename /\.resolved\.toml",
    r"os.rename /\.recipe\.toml",
    r"os.rename /\.manifest\.json",
    r"open /metrics\.jsonl a",
    r"vdmkit.step ^2$",
    r"os.rename checkpoints/3\..* .*checkpoints/3 ",  # the checkpoint is written, but not yet in its place
]
TRAINING = [
    r"os.rename checkpoints/3/\.checksums",  # in its place, but not yet known to be whole
    r"vdmkit.step ^5$",
    r"open checkpoints/6.*/data/",  # half written
    r"vdmkit.step ^7$",
    r"os.rmdir ^(data|meta|state) ",  # an old checkpoint is half deleted
    r"vdmkit.step ^12$",
    r"os.rename /\.evaluation\.json",
    r"open /\.samples\.png",
]


MOMENTS = [pytest.param(BEGINNING, id="beginning", marks=pytest.mark.slow), pytest.param(TRAINING, id="training")]


@pytest.mark.parametrize("moments", MOMENTS)
def test_a_run_that_was_killed_ends_as_one_that_was_not(processes, tiny, same_as_whole, steps_logged, moments):
    """A kill at one of these moments would change the model, lose the run, or stop it for good."""
    run = ("run", tiny, "--out", "run")
    for moment in moments:
        assert processes(*run, faults=f"SIGKILL {moment}").code == -9, f"nothing happened at {moment}"
    result = processes(*run)
    assert result.code == 0, result.err
    folder = processes.cwd / "run"
    same_as_whole(folder)
    assert steps_logged(folder) == list(range(1, 13))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["12", "9"], "nothing is left behind"


@pytest.mark.slow
def test_kills_at_random_moments(processes, arrays, tmp_path):
    """The default model, killed from outside at a moment that nobody chose, would end as another model."""
    run = ("run", str(ROOT / "recipes" / "digits.toml"), "--set", "evaluation.draws=2", "--set", "sampling.steps=2")
    for setting in ("steps=60", "checkpoint_every=5", "log_every=1"):
        run += ("--set", f"training.{setting}")
    assert processes(*run, "--out", "never").code == 0  # first: it fills the cache, which a kill may damage
    rng = random.Random(0)
    for _ in range(8):
        process = processes.start(*run, "--out", "killed")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(3, 9))
        process.kill()
        process.communicate()
    assert processes(*run, "--out", "killed").code == 0
    killed, never = arrays(tmp_path / "killed"), arrays(tmp_path / "never")
    assert {name: array.tobytes() for name, array in killed.items()} == {n: a.tobytes() for n, a in never.items()}
