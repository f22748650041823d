# SPDX-License-Identifier: Apache-2.0
"""Troubles that are planted in short trainings: each gives its one warning, and a healthy training gives none."""

import json

import numpy as np
import pytest

from vdmkit.report import read_metrics
from vdmkit.training.health import read_troubles

SHORT = ("--set", "training.steps=120", "--set", "training.batch_size=32", "--set", "training.ema_warmup=true")
SHORT += ("--set", "training.log_every=40", "--set", "training.checkpoint_every=60")
FIXED = ("--set", "model.schedule.name=fixed_linear")
SLOW_AVERAGE = ("--set", "training.ema=0.99999")
RATE = ("--set", "optimizer.learning_rate=10.0")


def warnings(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("warning: ")]


def test_a_healthy_training_gives_none(program, tiny):
    """Users would learn to ignore warnings."""
    result = program("run", tiny, "--out", "run", *SHORT, "--set", "training.evaluate_every=40")
    assert (result.code, warnings(result.err)) == (0, []), result.err
    assert json.loads((program.cwd / "run" / "health.json").read_text())["findings"] == []
    steps, values = read_metrics(program.cwd / "run")["test/ema_minus_raw"]
    assert steps.tolist() == [40, 80]
    assert np.isfinite(values).all()
    assert (values != 0).all()


PLANTED = {
    "rate": ("ends", "the learned schedule has collapsed", RATE),
    "rate, fixed ends": ("loss", "training diverges", (*RATE, *FIXED)),
    "gamma_min": ("levels", "with gamma_min = -3 its noise is 1.9", ("--set", "model.schedule.gamma_min=-3.0")),
    "gamma_min, fixed": ("levels", "gamma_min = -3", (*FIXED, "--set", "model.schedule.gamma_min=-3.0")),
    "gamma_max": ("prior", "with gamma_max = 0 the prior term", ("--set", "model.schedule.gamma_max=0.0")),
    "average": (
        "average",
        "will be 100% those of the untrained",
        ("--set", "training.ema_warmup=false", *SLOW_AVERAGE),
    ),
}


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("rate", marks=pytest.mark.costly),
        *(pytest.param(trouble, marks=pytest.mark.slow) for trouble in PLANTED if trouble != "rate"),
    ],
)
def test_a_trouble_gives_its_one_warning(program, tiny, trouble):
    """A training that cannot succeed would go on for hours, or one cause be reported as many."""
    sign, words, settings = PLANTED[trouble]
    run = ("run", tiny, "--out", "run", *SHORT, *settings)
    (line,) = warnings(program(*run).err)
    assert words in line
    (found,) = read_troubles(program.cwd / "run" / "health.json")
    assert (found.sign, line) == (sign, f"warning: step {found.step:,}: {found.message}")
    steps, values = read_metrics(program.cwd / "run")[f"health/{sign}"]
    assert (steps.tolist(), values.tolist()) == ([found.step], [1.0])
    again = program(*run, "--set", "training.steps=130")
    assert (again.code, warnings(again.err)) == (0, []), again.err


def test_labels_that_are_missing_are_refused(program, tiny):
    """A network would be trained on labels that nobody gave it."""
    network = "model.network={name='label_conditioned', network={name='tiny'}}"
    refused = program("run", tiny, "--out", "run", "--set", network)
    assert (refused.code, refused.out) == (1, "")
    (line,) = refused.err.splitlines()
    assert line.startswith("network 'label_conditioned' is told labels, and noise has none. Choose data with labels")
    assert not (program.cwd / "run").exists()
