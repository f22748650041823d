# SPDX-License-Identifier: Apache-2.0
"""A second start of a recipe traces no step and runs no check that passed, and trains to the same numbers."""

from pathlib import Path

import pytest

QUICK = ("training.steps=2", "evaluation.draws=2", "sampling.steps=2", "sampling.count=4")
TRACED = "Finished tracing step for jit"


@pytest.mark.slow
def test_a_second_start(processes, arrays, monkeypatch, tmp_path):
    """Each start would take as long as the first, or what is remembered would change what is trained."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")

    def kept() -> set[str]:
        return {path.name for path in Path(tmp_path, "cache", "remembered").iterdir()}

    def start(name: str, *values: str) -> str:
        options = [part for value in (*QUICK, *values) for part in ("--set", value)]
        done = processes("run", "digits", "--out", name, *options, plugins=())
        assert done.code == 0, done.err
        return done.err

    assert TRACED in start("first")
    known = kept()
    assert TRACED not in start("second")
    assert kept() == known
    first, second = (arrays(tmp_path / name) for name in ("first", "second"))
    assert {name: array.tobytes() for name, array in first.items()} == {
        name: array.tobytes() for name, array in second.items()
    }
    assert TRACED in start("other", "model.schedule.gamma_max=4.5")
    assert len(kept() - known) > 2  # its checks, too
