# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM: what there is is saved, the user learns how to go on, and nothing is different afterwards."""

import json
import signal

import pytest

from vdmkit.report import read_metrics
from vdmkit.training.checkpoints import CheckpointStore, steps_in

SAVED = "Stopped at step {} of 12 and saved. To go on, run the same command again."
KEPT = "Stopped. What was saved is kept: to go on, run the same command again."
TRAINED = (
    "Stopped after training: its last step, 12, is saved in run/checkpoints. To evaluate and sample, run the same "
)
TRAINED += "command again."
ANEW = "Run the same command again."


def test_a_run_that_was_stopped_goes_on(processes, tiny, same_as_whole, steps_logged):
    """Ctrl-C at one of these moments would lose work, say nothing, look like success, or change the model."""
    run = ("run", tiny, "--out", "run")
    stops = {
        r"SIGINT os.rename /\.manifest\.json": KEPT,  # before training
        r"SIGINT vdmkit.step ^1$": SAVED.format(2),
        r"SIGINT vdmkit.step ^4$; SIGINT open checkpoints/5.*/data/": KEPT,  # a second time, while it is saved
        r"SIGINT vdmkit.step ^12$": SAVED.format(12),  # too late for a step more
        r"SIGINT os.rename /\.evaluation\.json": TRAINED,
        r"SIGTERM os.rename /\.evaluation\.json": TRAINED,  # as a scheduler stops a job
        r"SIGTERM open /\.samples\.png": TRAINED,
    }
    for faults, message in stops.items():
        stopped = processes(*run, faults=faults)
        assert (stopped.code, stopped.out) == (3, ""), faults
        assert stopped.err.splitlines()[-1] == message, faults
    assert processes(*run).code == 0
    same_as_whole(processes.cwd / "run")
    assert steps_logged(processes.cwd / "run") == list(range(1, 13))


def test_a_stop_between_lines_of_metrics_leaves_no_trace(program, tiny, monkeypatch):
    """SIGTERM would add a line of metrics, average the next one over fewer steps, or displace a checkpoint."""
    stops, save = [3, 6], CheckpointStore.save

    def save_and_stop(store, step, *state, **how):
        save(store, step, *state, **how)
        if step in stops and (program.cwd / "whole").exists():
            stops.remove(step)
            signal.raise_signal(signal.SIGTERM)

    run = ("run", tiny, "--set", "training.log_every=5", "--set", "training.keep_last=2", "--out")
    assert program(*run, "before").code == 0
    (program.cwd / "before").rename(program.cwd / "whole")
    monkeypatch.setattr(CheckpointStore, "save", save_and_stop)
    assert [program(*run, "run").code for _ in range(3)] == [3, 3, 0]
    whole, found = (read_metrics(program.cwd / name) for name in ("whole", "run"))
    del whole["steps_per_second"], found["steps_per_second"]
    assert {name: [column.tolist() for column in columns] for name, columns in found.items()} == {
        name: [column.tolist() for column in columns] for name, columns in whole.items()
    }
    assert steps_in(program.cwd / "run" / "checkpoints") == steps_in(program.cwd / "whole" / "checkpoints") == [9, 12]
    assert json.loads((program.cwd / "run" / "manifest.json").read_text())["logged"] == 7


STOPPED = [
    (("evaluate",), r"open noise\.npz", f"Stopped. No result was written. {ANEW}"),
    (
        ("likelihood",),
        r"open noise\.npz",
        "Stopped. Batches that were done are kept: to go on, run the same command again.",
    ),
    (("sample", "-n", "1"), r"open \.samples\.png", f"Stopped. No samples were written. {ANEW}"),
    (
        ("study",),
        r"open noise\.npz",
        "Stopped. What was measured so far is kept: to go on, run the same command again.",
    ),
]


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_command_that_was_stopped_says_so(processes, whole, snapshot, signal):
    """SIGTERM or Ctrl-C would end a command without a word, as a failure, or with half of a result written."""
    before = snapshot(whole)
    for command, moment, message in STOPPED:
        name, *options = command
        stopped = processes(name, "--ckpt", str(whole), *options, faults=f"{signal} {moment}")
        assert (stopped.code, stopped.out) == (3, ""), command
        assert stopped.err.splitlines()[-1] == message, command
    assert snapshot(whole) == before
    assert not list(processes.cwd.iterdir())
