# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind, and that it comes out the same again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdmkit.report import grid
from vdmkit.report.charts import side_by_side
from vdmkit.training.checkpoints import steps_in

KEYS = {
    "bpd",
    "bpd_low",
    "bpd_high",
    "terms",
    "images",
    "dataset",
    "estimator",
    "step",
    "weights",
    "reasons",
    "trusted",
}


@pytest.fixture(scope="module")
def evaluation(whole) -> dict:
    return without_checksum(whole / "evaluation.json")


def without_checksum(path: Path) -> dict:
    facts = json.loads(path.read_text())
    return {name: facts[name] for name in facts if name != "crc32"}


def picture(path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)[..., None]


def test_the_summary(whole, evaluation):
    """A run would not end with its result, where everything is, and what to do next."""
    lines = (whole / "stdout.txt").read_text().splitlines()
    width = (evaluation["bpd_high"] - evaluation["bpd_low"]) / 2
    assert lines[1] == f"{evaluation['bpd']:.4f} +/- {width:.4f} bits/dim on these 20 images"
    terms = " + ".join(f"{name} {value:.4f}" for name, value in evaluation["terms"].items())
    assert f"  terms         {terms}" in lines
    places = dict(line.split(maxsplit=1) for line in lines if line.startswith("  ") and str(whole) in line)
    assert places["samples"].startswith(str(whole / "samples.png"))
    assert places["checkpoints"] == str(whole / "checkpoints")
    assert places["evaluation"] == str(whole / "evaluation.json")
    assert places["next"] == f"vdmkit sample --ckpt {whole} -n 64 -o grid.png"


def test_the_evaluation(evaluation):
    """A program that reads evaluation.json would miss a fact, or read facts that contradict each other."""
    assert evaluation.keys() >= KEYS
    assert evaluation["bpd"] == pytest.approx(sum(evaluation["terms"].values()), rel=1e-12)  # float64
    assert evaluation["bpd_low"] < evaluation["bpd"] < evaluation["bpd_high"]
    assert (evaluation["images"], evaluation["dataset"]) == (20, "noise/test")
    assert (evaluation["step"], evaluation["weights"]) == (12, "ema")
    assert evaluation["estimator"] == "variational bound, continuous time"


def test_the_metrics(whole, evaluation):
    """A step would be missing or logged twice, or a line not be JSON; or the result or the learning rate be absent.

    The learning rate, 0.01, warms up in two steps: the first update changes nothing, so that gamma_0 is still -8.
    """
    *lines, last = (json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines())
    expected = {f"test/{name}": evaluation[name] for name in ("bpd", "bpd_low", "bpd_high")}
    assert last == {"step": 12, **expected, "crc32": last["crc32"]}
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["learning_rate"] for line in lines] == pytest.approx([0, 0.005, *10 * [0.01]], rel=1e-6)  # float32
    assert (lines[0]["schedule/gamma_0"], lines[0]["schedule/gamma_1"]) == (-8, 5)
    assert lines[1]["schedule/gamma_0"] != -8
    assert lines[1]["schedule/gamma_1"] != 5
    for line in lines:
        terms = (line[f"train/{name}"] for name in ("prior", "reconstruction", "diffusion"))
        assert line["train/bpd"] == pytest.approx(sum(terms), rel=1e-6)  # three float32 roundings
    assert list((whole / "tensorboard").iterdir())


def test_the_resolved_recipe_is_the_same_run(program, whole, same_as_whole):
    """The stored recipe would not reproduce the run, or the same recipe would give another model the second time."""
    result = program("run", str(whole / "resolved.toml"), "--out", "run")
    assert result.code == 0
    same_as_whole(program.cwd / "run")
    assert (program.cwd / "run" / "resolved.toml").read_text() == (whole / "resolved.toml").read_text()


def test_evaluate_gives_the_run_s_own_number(program, whole, evaluation):
    """The number of a run could not be had again from its folder."""
    result = program("evaluate", "--ckpt", str(whole), "--json")
    assert result.code == 0
    assert json.loads(result.out) == evaluation
    assert without_checksum(whole / "evaluation.json") == evaluation


def test_a_run_s_folder_is_enough(program, whole, evaluation):
    """A run could not be evaluated once the plugin file that it was started with is gone."""
    assert sorted(path.name for path in (whole / "plugins").iterdir()) == ["faults.py", "tiny.py"]
    result = program("evaluate", "--ckpt", str(whole), "--json", plugins=())
    assert result.code == 0
    assert json.loads(result.out) == evaluation


def test_any_checkpoint_can_be_evaluated(program, whole, evaluation):
    """A checkpoint that was kept, such as the best one, could not be looked at, or the newest be taken for it."""
    folder = shutil.copytree(whole, program.cwd / "run")
    result = program("evaluate", "--ckpt", str(folder), "--checkpoint-step", "9", "--json")
    facts = json.loads(result.out)
    assert facts["step"] == 9
    assert facts["bpd"] != evaluation["bpd"]
    sampled = program("sample", "--ckpt", "run", "--checkpoint-step", "9", "-n", "1")
    assert sampled.out.startswith("samples.png: 1 sample of the checkpoint of step 9, by sampler ancestral")
    missing = program("evaluate", "--ckpt", "run", "--checkpoint-step", "10")
    assert (missing.code, missing.out) == (1, "")
    assert missing.err == "run/checkpoints: no checkpoint of step 10. Steps that are there: 9, 12.\n"


def test_training_images_are_no_test_set(program, tiny, whole):
    """A bound on images that the model was trained on would be reported as its test bound."""
    folder = shutil.copytree(whole, program.cwd / "run")
    swapped = ("--set", "data.test=train", "--set", "data.train=test")
    result = program("evaluate", "--ckpt", str(folder), *swapped)
    assert result.code == 0
    assert "bits/dim on these 60 images, NOT A TEST LIKELIHOOD" in result.out.splitlines()[0]
    assert "all 60 of noise[train]/test" in result.out
    assert "trained on 60 of the 60 images: not a test likelihood" in result.out
    assert json.loads((folder / "evaluation.json").read_text())["test_images_trained_on"] == 60


def test_samples_are_the_same_whatever_is_asked_for(program, tiny, whole):
    """`sample -n 3` would not be the first images that the run showed, or the grid show other images."""
    result = program("sample", "--ckpt", str(whole), "-n", "4", "-o", "four.npy")
    how = 'sampler ancestral kernel=(gaussian variance="small"), grid uniform, 2 steps to z_0, guidance 0, no labels'
    assert (result.code, result.out) == (0, f"four.npy: 4 samples of the checkpoint of step 12, by {how}\n")
    four = np.load(program.cwd / "four.npy")
    assert (four.shape, four.dtype) == ((4, 8, 8, 1), np.uint8)
    assert four.max() <= 16
    assert program("sample", "--ckpt", str(whole), "-n", "3", "-o", "three.png").code == 0
    np.testing.assert_array_equal(picture(program.cwd / "three.png"), grid(four[:3], 17))
    with np.load(Path(tiny).parent / "noise.npz") as file:
        real = file["test"][:4]
    np.testing.assert_array_equal(picture(whole / "samples.png"), side_by_side(grid(four, 17), grid(real, 17)))


def test_looking_on_changes_nothing(program, tiny, arrays, whole):
    """Evaluating and sampling during training would change the model, or the best checkpoint not be kept."""
    looks = ("--set", "training.evaluate_every=4", "--set", "training.sample_every=5")
    assert program("run", tiny, "--out", "run", *looks).code == 0
    run = program.cwd / "run"
    expected, found = arrays(whole), arrays(run)
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in expected.items()}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bpds = {line["step"]: line["test/bpd"] for line in lines if "test/bpd" in line and line["step"] < 12}
    assert list(bpds) == [4, 8]
    assert steps_in(run / "checkpoints") == sorted({min(bpds, key=bpds.__getitem__), 9, 12})


def test_a_curve_of_few_draws(program, tiny, arrays, whole):
    """The curve would cost what the reported bound does, be noise, be taken for it, or choose what is kept."""
    curve = (
        "--set",
        "training.evaluate_every=4",
        "--set",
        "training.evaluate_draws=4",
        "--set",
        "training.keep_best=0",
    )
    assert program("run", tiny, "--out", "run", *curve).code == 0
    run = program.cwd / "run"
    expected, found = arrays(whole), arrays(run)
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in expected.items()}
    assert (run / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()
    assert steps_in(run / "checkpoints") == [9, 12]
    metrics = (run / "metrics.jsonl").read_bytes()
    lines = [json.loads(line) for line in metrics.splitlines()]
    bpds = {line["step"]: line["test/bpd_of_4_draws"] for line in lines if "test/bpd_of_4_draws" in line}
    assert list(bpds) == [4, 8, 12]
    draws = ("--set", "evaluation.draws=4")  # the same ones, which fix the last point
    alone = program("evaluate", "--ckpt", str(shutil.copytree(whole, program.cwd / "whole")), *draws, "--json")
    assert json.loads(alone.out)["bpd"] == bpds[12]
    assert program("run", tiny, "--out", "run", *curve).code == 0
    assert (run / "metrics.jsonl").read_bytes() == metrics, "a finished run that is run again has nothing to add"


def test_a_file_of_another_kind_is_refused_at_once(program, whole):
    """Samples would be drawn for minutes and then not be saved."""
    result = program("sample", "--ckpt", str(whole), "-o", "grid.jpg")
    assert (result.code, result.out) == (2, "")
    assert result.err == "-o grid.jpg: expected a name that ends in .png or .npy.\n"


def test_too_little_time_for_samples_is_said(program, tiny):
    """A slow machine would sample for hours, or show fewer samples than asked for without a word."""
    quick = ("--set", "sampling.minutes=1e-9", "--set", "training.steps=2")
    result = program("run", tiny, "--out", "run", *quick)
    assert result.code == 0
    assert "4 images of 2 steps would take more than sampling.minutes = 1e-09 here; drawing 1 of 1 steps." in result.err
    assert picture(program.cwd / "run" / "samples.png").shape == (32, 3 * 32, 1)
