# SPDX-License-Identifier: Apache-2.0
"""`vdmkit compare`: two runs on the same images with the same noise."""

import json
import shutil

import numpy as np
import pytest


@pytest.fixture
def copied(program, whole):
    """The whole run in the program's folder, where results are written."""
    shutil.copytree(whole, program.cwd / "run")
    return program


def test_a_run_equals_itself(copied):
    """Noise would be taken for a difference of two models."""
    found = json.loads(copied("compare", "run", "run", "--json").out)
    assert set(found["difference"].values()) == {0.0}
    assert (found["times_draws"], found["times_images"]) == (None, None)
    assert "on these images: no difference\n" in copied("compare", "run", "run").out


def test_weights_of_one_run_are_compared(copied):
    """The averaged and the raw parameters could not be told apart by the draws that they share."""
    result = copied("compare", "run", "run", "--second-set", "likelihood.weights=raw", "--json")
    found = json.loads(result.out)
    difference = found["difference"]
    assert difference["value"] == pytest.approx(found["first"]["bpd"] - found["second"]["bpd"], abs=1e-12)  # float64
    kept = [json.loads(path.read_text()) for path in copied.cwd.glob("run/likelihood/*.json")]
    assert {one["bpd"] for one in kept if "compared_by" in one} >= {found[name]["bpd"] for name in ("first", "second")}
    unpaired = np.hypot(*(found[name]["half_width_monte_carlo"] for name in ("first", "second")))
    assert 0 < difference["half_width_monte_carlo"] < unpaired / 3


def test_other_estimators_are_refused(copied):
    """The difference of two estimators would be taken for one of two models."""
    result = copied("compare", "run", "run", "--second-set", "likelihood.estimator.steps=3")
    assert result.code == 2
    assert "Give --estimator, and --steps of a bound, for both." in result.err


@pytest.mark.parametrize(("key", "value"), [("images", "8"), ("precision", "0.5")])
def test_other_images_are_refused_before_they_are_measured(copied, key, value):
    """Hours would be spent on two measurements that cannot be compared."""
    result = copied("compare", "run", "run", "--second-set", f"likelihood.{key}={value}")
    assert result.code == 2
    assert f"compare: likelihood.{key} is 0" in result.err
    assert not list(copied.cwd.glob("run/likelihood/*bound*"))


def test_other_levels_are_refused(copied):
    """Bits/dim of 17 levels would be compared with those of 33, by a message that shows twice the same images."""
    result = copied("compare", "run", "run", "--second-set", "data.levels=33")
    assert result.code == 1
    words = "compare: the test images of the first have 17 levels, and those of the second 33, whose likelihoods do not"
    assert result.err.startswith(words)


def test_other_draws_are_refused(copied):
    """Two estimates without common noise would be compared as if they had it."""
    result = copied("compare", "run", "run", "--second-set", "likelihood.estimator.draws=32")
    assert result.code == 2
    assert "other settings, with which the estimates share no noise" in result.err
