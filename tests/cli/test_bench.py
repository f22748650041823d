# SPDX-License-Identifier: Apache-2.0
"""`vdmkit bench`: measurements and their comparison."""

import json
import math

import numpy as np
import pytest

from vdmkit.experiments.speed import Median, median


@pytest.mark.costly
def test_a_recipe_is_measured_and_compared(vdmkit_in, tmp_path, monkeypatch):
    """`vdmkit bench` measures steps, records a trace, and compares with an earlier result."""
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")  # which the command sets for its process
    bench = vdmkit_in(tmp_path)
    first = bench("bench", "oracle_gaussian", "--seconds", "0", "--json", "--profile", "2")
    assert first.code == 0, first.err
    (tmp_path / "first.json").write_text(first.out)
    found = json.loads(first.out)
    assert (found["batch_size"], found["parameters"], found["utilisation"]) == (8, 0, None)
    assert found["flops"] > 0
    step = found["step_seconds"]
    assert 0 < step["low"] <= step["value"] <= step["high"]
    assert 0 < found["waiting"] < 1
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    second = bench("bench", "oracle_gaussian", "--seconds", "0", "--against", "first.json")
    assert "times as fast as before (95%: " in second.out, second.err
    (tmp_path / "first.json").write_text("{}")
    refused = bench("bench", "oracle_gaussian", "--seconds", "0", "--against", "first.json")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == "first.json: not what `vdmkit bench --json` prints ('step_seconds').\n"


def test_intervals_hold_the_median():
    """Intervals cover the median in 95% of 400 experiments, within 4 standard errors."""
    rng = np.random.default_rng(0)
    intervals = [median(rng.exponential(size=31)) for _ in range(400)]
    covered = np.mean([one.low <= math.log(2) <= one.high for one in intervals])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


def test_a_ratio_has_the_errors_of_both():
    """The interval of a ratio combines the errors of both medians."""
    ratio = Median(2.0, 1.9, 2.1).over(Median(1.0, 0.95, 1.05))
    assert ratio.value == 2
    assert math.log(2 / ratio.low) == pytest.approx(math.hypot(math.log(2 / 1.9), math.log(1.05)))
    assert math.log(ratio.high / 2) == pytest.approx(math.hypot(math.log(2.1 / 2), math.log(1 / 0.95)))
