# SPDX-License-Identifier: Apache-2.0
"""The scripts in examples/ run, with the results that they describe."""

import re
import runpy
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

import vdmkit

pytestmark = pytest.mark.system  # tests/training/test_step.py has a fast test of `vdmkit.loss`

ROOT = Path(__file__).parents[1]
STEPS = 20
RECIPE = f"""
seed = 3
[data]
name = "digits"
[model.schedule]
name = "learned_linear"
gamma_min = -8.0
gamma_max = 5.0
[model.prediction]
name = "categorical"
[model.network]
name = "tiny"
[optimizer]
name = "adamw"
learning_rate = 1e-2
warmup_steps = 2
clip_norm = 1.0
decay = "cosine"
[training]
steps = {STEPS}
batch_size = 8
ema = 0.9
[evaluation]
draws = 2
[sampling]
steps = 1
count = 4
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, vdmkit_in) -> Path:
    """A run of 20 steps with dropout in its network."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "tiny.toml").write_text(RECIPE)
    plugin = ROOT / "tests" / "system" / "tiny.py"
    done = vdmkit_in(folder)("run", "tiny.toml", "--out", "run", "--plugin", str(plugin))
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture
def example(run, monkeypatch, capsys):
    """`example("a", "1")` runs examples/a.py on the run, in its folder, and returns what it prints."""

    def example(name: str, *arguments: str) -> str:
        monkeypatch.chdir(run.parent)
        monkeypatch.setattr(sys, "argv", [name, "run", *arguments])
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return example


def test_a_training_loop_equals_vdmkit_run(run, capsys):
    """A training loop over `vdmkit.loss` and optax gives the parameters of `vdmkit run`, bit for bit."""
    trained = vdmkit.load(run, weights="raw")
    model = runpy.run_path(str(ROOT / "examples" / "training_loop.py"))["train"](trained.recipe)
    assert capsys.readouterr().out.count("bits/dim") == STEPS
    found, expected = (jax.tree.leaves(eqx.filter(one, eqx.is_array)) for one in (model, trained.model))
    assert len(found) == len(expected) > 4
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs), strict=True)


def test_the_likelihood_of_an_array(example):
    """The example runs and prints every number that it describes."""
    printed = example("likelihood_of_an_array", "16")
    value = r"-?\d+\.\d{4} \+/- \d+\.\d{4} \(95%: .*\) bits/dim\n"
    image = r"image \d+ is the least probable: -\d+\.\d nats \+/- \d+\.\d, of \d+ evaluations\n"
    assert re.fullmatch(f"upright      {value}upside down  {value}{image}100 steps cost {value}", printed)


def test_the_study_of_a_schedule(example, run):
    """The example runs and its custom schedule is part of the chart."""
    printed = example("study_of_a_schedule", "8", "5")
    assert re.search(r"^my sigmoid: variance \d+\.\d{4} \(bits/dim\)\^2$", printed, re.MULTILINE)
    assert printed.endswith("schedules.svg schedules.png\n")
    assert (run.parent / "schedules.png").read_bytes().startswith(b"\x89PNG")
    assert "my sigmoid" in (run.parent / "schedules.svg").read_text()
