# SPDX-License-Identifier: Apache-2.0
"""A full disk: one clear message, nothing lost, and the same command goes on when there is space again."""

import pytest

NO_SPACE = "No space left on device"


@pytest.mark.slow
def test_a_disk_that_is_full_again_and_again(processes, tiny, same_as_whole):
    """A write that fails would end in a traceback, damage what was saved before, or end the run for good."""
    run = ("run", tiny, "--out", "run")
    checkpoint = "checkpoint 6 could not be written to {}: " + NO_SPACE
    kept = "The last good checkpoint is that of step 3. Free space and run the same command again."
    again = ". Free space there, and run the same command again."
    faults = {
        r"full open /\.resolved\.toml": f"run/resolved.toml: {NO_SPACE}{again}",
        r"full os.mkdir run/tensorboard": f"run/tensorboard: {NO_SPACE}{again}",
        r"full open checkpoints/6.*/data/": checkpoint,
        r"limit vdmkit.step ^5$": "checkpoint 6 could not be written",  # as TensorStore, which is no Python, meets it
        r"full open checkpoints/6/\.checksums": checkpoint,
        r"full open /\.samples\.png": f"run/samples.png: {NO_SPACE}{again}",
    }
    for fault, message in faults.items():
        result = processes(*run, faults=fault)
        assert (result.code, result.out) == (1, ""), fault
        last = result.err.splitlines()[-1]
        assert message.format(processes.cwd.resolve() / "run/checkpoints") in last, fault
        assert last.endswith(kept) or "checkpoint" not in message
    assert processes(*run).code == 0
    same_as_whole(processes.cwd / "run")


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_a_folder_that_cannot_be_written(processes, whole, command):
    """`evaluate` on a read-only run would keep its bound to itself, or `sample` look like success."""
    target = r"full open /\.evaluation\.json" if command == "evaluate" else r"full open \.grid\.png"
    output = () if command == "evaluate" else ("-n", "1", "-o", "grid.png")
    result = processes(command, "--ckpt", str(whole), *output, faults=target)
    assert result.code == 1
    name = "grid.png" if command == "sample" else str(whole / "evaluation.json")
    assert result.err.splitlines()[-1] == f"{name}: {NO_SPACE}. Free space there, and run the same command again."
    assert ("bits/dim on these 20 images" in result.out) == (command == "evaluate")
