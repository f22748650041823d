# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C: what there is is saved, the user learns how to go on, and nothing is different afterwards."""

SAVED = "Stopped at step {} of 12 and saved. To go on, run the same command again."
KEPT = "Stopped. What was saved is kept: to go on, run the same command again."


def test_a_run_that_was_stopped_goes_on(program, tiny, same_as_whole, steps_logged):
    """Ctrl-C at one of these moments would lose work, say nothing, look like success, or change the model."""
    run = ("run", tiny, "--out", "run")
    stops = {
        r"SIGINT os.rename /\.manifest\.json": KEPT,  # before training
        r"SIGINT vdmkit.step ^1$": SAVED.format(2),
        r"SIGINT vdmkit.step ^4$; SIGINT open checkpoints/5.*/data/": KEPT,  # a second time, while it is saved
        r"SIGINT vdmkit.step ^12$": SAVED.format(12),  # too late for a step more
        r"SIGINT os.rename /\.evaluation\.json": KEPT,  # after training
    }
    for faults, message in stops.items():
        stopped = program(*run, faults=faults)
        assert (stopped.code, stopped.out) == (3, ""), faults
        assert stopped.err.splitlines()[-1] == message, faults
    assert program(*run).code == 0
    same_as_whole(program.cwd / "run")
    assert steps_logged(program.cwd / "run") == list(range(1, 13))
