# SPDX-License-Identifier: Apache-2.0
"""Run folders with damaged files: what can be used is used, and what happened is said."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(whole, program) -> Path:
    """A copy of the undisturbed run, to be damaged."""
    return Path(shutil.copytree(whole, program.cwd / "run"))


def cut_largest(checkpoint: Path) -> str:
    """Truncate the file with the parameters; gives its name."""
    path = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    return str(path.relative_to(checkpoint))


def test_a_truncated_newest_checkpoint(program, tiny, copy, same_as_whole):
    """The run would stop, start from nothing, go on from damaged numbers, or not say that it went back."""
    name = cut_largest(copy / "checkpoints" / "12")
    read = program("evaluate", "--ckpt", "run")
    assert (read.code, "step 9, ema weights" in read.out) == (0, True)
    assert f"checkpoint 12 cannot be used: {name} has changed since it was written" in read.err
    assert not (copy / "damaged_checkpoints").exists(), "reading moves nothing"
    again = program("run", tiny, "--out", "run")
    assert again.code == 0
    assert f"checkpoint 12 cannot be used: {name} has changed since it was written" in again.err
    assert f"Moved to {(copy / 'damaged_checkpoints' / '12').resolve()}." in again.err
    assert "continuing run from step 9" in again.err
    same_as_whole(copy)
    assert (copy / "damaged_checkpoints" / "12").is_dir()


def test_all_checkpoints_truncated(program, tiny, copy, same_as_whole):
    """A run without a usable checkpoint would stop for good, or begin again without a word."""
    for step in ("9", "12"):
        cut_largest(copy / "checkpoints" / step)
    read = program("evaluate", "--ckpt", "run")
    assert (read.code, read.out) == (1, "")
    assert "no usable checkpoint. Run the recipe until it has saved one." in read.err
    again = program("run", tiny, "--out", "run")
    assert again.code == 0
    assert "No usable checkpoint is left: training starts again from the beginning." in again.err
    same_as_whole(copy)


def test_a_damaged_manifest(program, tiny, copy, same_as_whole):
    """A damaged manifest.json would end in a traceback, or following the advice would not help."""
    (copy / "manifest.json").write_text('{"shape": [8')
    for command in (("run", tiny, "--out", "run"), ("evaluate", "--ckpt", "run")):
        result = program(*command)
        assert result.code == 1
        assert result.err.startswith("run/manifest.json: cannot be read")
        assert "delete it and run the recipe again" in result.err
    (copy / "manifest.json").unlink()
    assert program("run", tiny, "--out", "run").code == 0
    same_as_whole(copy)
    assert (copy / "manifest.json").is_file()
