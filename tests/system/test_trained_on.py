# SPDX-License-Identifier: Apache-2.0
"""Test images that are not what they seem: other levels, near copies of training images, copies of each other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

QUICK = ("--set", "likelihood.estimator.draws=4")


@pytest.fixture(scope="module")
def images(tiny) -> dict[str, np.ndarray]:
    """The images of the tiny recipe."""
    with np.load(Path(tiny).parent / "noise.npz") as file:
        return dict(file)


@pytest.fixture
def run(program, whole, images) -> Path:
    """A copy of the undisturbed run, and beside it data like its own with other test images."""
    train, test = images["train"], images["test"]
    changed = train[:20].copy()
    changed[:, 3, 4] = (changed[:, 3, 4] + 8) % 17
    repeated = test[:4].repeat(5, 0)
    for name, other in {
        "half": test // 2,
        "changed": changed,
        "repeated": repeated,
        "same": test[:1].repeat(9, 0),
    }.items():
        np.savez(program.cwd / f"{name}.npz", train=train, test=other)
    return Path(shutil.copytree(whole, program.cwd / "run"))


def on(name: str) -> tuple[str, str]:
    return "--set", f"data.path={name}.npz"


def test_the_genuine_test_images(whole):
    """A run would be marked, or not say that its images are what they should be."""
    facts = json.loads((whole / "evaluation.json").read_text())
    found = [facts[name] for name in ("test_images_trained_on", "test_images_near_trained_on", "held_out", "remarks")]
    assert found == [0, 0, True, []]
    assert facts["distinct_images"] == 20


def test_other_levels_are_refused(program, tiny, run):
    """Test images whose levels are halved would give a number without a remark."""
    reason = "the test images are unlike the training images: the "
    commands = ("likelihood", *QUICK), ("evaluate",), ("likelihood", "--audit")
    measured, evaluated, audited = program.together(*((*one, "--ckpt", "run", *on("half")) for one in commands))
    assert (measured.code, evaluated.code, audited.code) == (4, 1, 1)
    for result in (measured, evaluated, audited):
        assert result.out == ""
        assert reason in result.err
    assert not (run / "likelihood.unfinished").exists(), "before anything is measured"
    started = program("run", tiny, "--out", "other", *on("half"))
    assert (started.code, (program.cwd / "other").exists()) == (1, False)
    assert reason in started.err, "before hours of training"


@pytest.mark.costly
def test_near_copies_are_marked(program, run):
    """Training images with one pixel changed would pass for test images."""
    commands = ("likelihood", "--ckpt", "run", *QUICK, *on("changed")), ("evaluate", "--ckpt", "run", *on("changed"))
    measured, evaluated = program.together(*commands)
    said = "20 of the 20 test images are near copies of training images: not a test likelihood."
    assert (measured.code, evaluated.code) == (0, 0)
    assert "on these 20 images, NOT A TEST LIKELIHOOD" in measured.out.splitlines()[0]
    assert said in measured.out
    assert "on these 20 images, NOT A TEST LIKELIHOOD" in evaluated.out.splitlines()[0]
    assert said in evaluated.out
    for path in (*(run / "likelihood").glob("*.json"), run / "evaluation.json"):
        facts = json.loads(path.read_text())
        assert [facts[key] for key in ("test_images_trained_on", "test_images_near_trained_on")] == [0, 20]
        assert facts["held_out"] is False


def test_copies_count_once(program, tiny, run):
    """Few images, many times each, would have the error bar of many images."""
    commands = ("likelihood", "--ckpt", "run", *QUICK, *on("repeated")), ("evaluate", "--ckpt", "run", *on("repeated"))
    for result in program.together(*commands):
        assert result.code == 0, result.err
        assert "Only 4 of the 20 images are distinct" in result.out
    for path in (*(run / "likelihood").glob("*.json"), run / "evaluation.json"):
        facts = json.loads(path.read_text())
        assert (facts["images"], facts["distinct_images"], facts["held_out"]) == (20, 4, True)
    same = program("run", tiny, "--out", "other", *on("same"))
    assert same.code == 1
    assert "9 image(s), all the same: an interval needs at least 2 that differ" in same.err


@pytest.mark.parametrize("name", ["trained_on.npy", "trained_levels.npy"])
def test_a_flipped_byte_is_noticed(program, run, name):
    """A damaged list of training images would not find them among test images."""
    data = bytearray((run / name).read_bytes())
    data[-3] ^= 1
    (run / name).write_bytes(data)
    damaged, measured = program.together(("evaluate", "--ckpt", "run"), ("likelihood", "--ckpt", "run", *QUICK))
    (run / name).unlink()
    missing = program("evaluate", "--ckpt", "run")
    changed = "changed since the run wrote it"
    for result, found in ((damaged, changed), (measured, changed), (missing, "missing")):
        assert (result.code, result.out) == (1, "")
        assert f"run/{name}: {found}. Run the recipe again to write it" in result.err
    assert not (run / "likelihood.unfinished").exists(), "before anything is measured"


def test_the_advice_helps(program, tiny, run, same_as_whole, snapshot, whole):
    """Running the recipe again would not bring back what was damaged."""
    (run / "trained_on.npy").write_bytes(b"")
    assert program("run", tiny, "--out", "run").code == 0
    same_as_whole(run)
    assert (run / "trained_on.npy").read_bytes() == (whole / "trained_on.npy").read_bytes()
