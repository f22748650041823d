# SPDX-License-Identifier: Apache-2.0
"""Run folders with damaged files: training goes on from what is whole, and no number is of another checkpoint."""

import json
import shutil
from pathlib import Path

import pytest

ADVICE = "Choose an earlier one (--checkpoint-step 9), or run the recipe again, which goes on from step 9."


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
    """A number would be that of an older model; or the run stop, go on from damaged numbers, or not say so."""
    name = cut_largest(copy / "checkpoints" / "12")
    options = dict.fromkeys(("evaluate", "sample", "likelihood", "study", "quality"), ())
    options |= {"convert": ("--to", "run/resolved.toml", "-o", "new")}
    for read in program.together(*((command, "--ckpt", "run", *more) for command, more in options.items())):
        assert (read.code, read.out) == (1, "")
        damaged = f"run/checkpoints/12: this checkpoint, the last that was saved, is damaged: {name} has changed since"
        assert read.err.startswith(damaged)
        assert read.err.endswith(f". {ADVICE}\n")
    chosen = program("evaluate", "--ckpt", "run", "--checkpoint-step", "9")
    assert (chosen.code, "step 9, ema weights" in chosen.out) == (0, True)
    assert not (copy / "damaged_checkpoints").exists(), "reading moves nothing"
    again = program("run", tiny, "--out", "run")
    assert again.code == 0
    assert f"checkpoint 12 cannot be used: {name} has changed since it was written" in again.err
    assert f"Moved to {(copy / 'damaged_checkpoints' / '12').resolve()}." in again.err
    assert "continuing run from step 9" in again.err
    same_as_whole(copy)
    assert (copy / "damaged_checkpoints" / "12").is_dir()


def test_a_missing_newest_checkpoint(program, tiny, copy, same_as_whole):
    """A number would be that of an older model, or training go back to it, without a word."""
    assert json.loads((copy / "manifest.json").read_text())["newest_checkpoint"] == 12
    shutil.rmtree(copy / "checkpoints" / "12")
    read = program("evaluate", "--ckpt", "run")
    assert (read.code, read.out) == (1, "")
    missing = "run/checkpoints/12: this checkpoint, the last that was saved, is missing."
    assert read.err == f"{missing} {ADVICE}\n"
    again = program("run", tiny, "--out", "run")
    assert again.code == 0
    assert f"{missing} Training goes on from step 9.\n" in again.err
    assert program("evaluate", "--ckpt", "run").code == 0
    same_as_whole(copy)


@pytest.mark.slow
def test_a_kill_between_a_checkpoint_and_its_note(processes, tiny, same_as_whole):
    """A run that was killed at the wrong moment would be refused as damaged, although it is sound."""
    run = processes.cwd / "run"
    for moment, noted, read in (
        (r"SIGKILL os.rename checkpoints/3/\.checksums", None, None),
        (r"SIGCONT vdmkit.step ^5$; SIGKILL os.rename /\.manifest\.json", 3, 6),  # SIGCONT does nothing: from there on
        (r"SIGKILL os.rename checkpoints/9/\.checksums", 6, 6),
    ):
        assert processes("run", tiny, "--out", "run", faults=moment).code == -9
        assert json.loads((run / "manifest.json").read_text())["newest_checkpoint"] == noted
        evaluated = processes("evaluate", "--ckpt", "run")
        if read is None:
            assert (evaluated.code, "no checkpoint yet" in evaluated.err) == (1, True)
        else:
            assert (evaluated.code, f"step {read}, ema weights" in evaluated.out) == (0, True), evaluated.err
    assert processes("run", tiny, "--out", "run").code == 0
    same_as_whole(run)


def test_all_checkpoints_truncated(program, tiny, copy, same_as_whole):
    """A run without a usable checkpoint would stop for good, or begin again without a word."""
    for step in ("9", "12"):
        cut_largest(copy / "checkpoints" / step)
    read = program("evaluate", "--ckpt", "run")
    assert (read.code, read.out) == (1, "")
    assert "No other is whole. To train again, run the recipe again.\n" in read.err
    again = program("run", tiny, "--out", "run")
    assert again.code == 0
    assert "No usable checkpoint is left: training starts again from the beginning." in again.err
    same_as_whole(copy)


def test_a_damaged_manifest(program, tiny, copy, whole, same_as_whole):
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
    names = {json.loads((run / "manifest.json").read_text())["run"] for run in (whole, copy)}
    assert len(names) == 1, "its checkpoints remember which run it is"
    assert program("evaluate", "--ckpt", "run").code == 0


def test_the_manifest_of_another_run(program, tiny, copy):
    """A report would tell of sessions and test images of another run of the same recipe."""
    other = json.loads((copy / "manifest.json").read_text())
    other["sessions"][0]["command"] = ["of another run"]
    other["run"] = 16 * "0"
    del other["sha256"]
    (copy / "manifest.json").write_text(json.dumps(other))
    for command in (("run", tiny, "--out", "run"), ("evaluate", "--ckpt", "run")):
        result = program(*command)
        assert result.code == 1
        assert "run/checkpoints/12: this checkpoint was made with other sessions, so it or manifest.json" in result.err
