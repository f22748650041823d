# SPDX-License-Identifier: Apache-2.0
"""Two processes, connected by gloo on one machine, do what one does."""

import json
import socket
import time

import numpy as np
import pytest

# As in test_devices.py: by rounding, a draw may count for the next bin of times that learn.
EVEN = ("--set", "objective.time_sampler=low_discrepancy")


def in_two(processes, *arguments, faults=("", "")):
    """The results of both processes of a command."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    options = ("--distributed", "explicit", "--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process")
    started = [processes.start(*arguments, *options, str(i), faults=faults[i]) for i in (0, 1)]
    ended = [(process, *process.communicate(timeout=300)) for process in started]
    return [processes.result(process.returncode, out, err) for process, out, err in ended]


def curve(run):
    """The training losses of a run."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["train/bpd"] for line in lines if "train/bpd" in line]


def test_two_processes_train_as_one(program, processes, tiny):
    """Each would train alone, print twice, or write into the other's files."""
    assert program("run", tiny, "--out", "one", *EVEN).code == 0
    first, second = in_two(processes, "run", tiny, "--out", "two", *EVEN)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert second.out == ""
    assert second.err.splitlines() == ["process 1 of 2, 1 of 2 devices, cpu"]
    assert "process 0 of 2, 1 of 2 devices, cpu" in first.err
    np.testing.assert_allclose(curve(processes.cwd / "two"), curve(processes.cwd / "one"), rtol=1e-4)
    assert {path.name for path in (processes.cwd / "two").iterdir()} == {
        path.name for path in (processes.cwd / "one").iterdir()
    }


@pytest.mark.slow
def test_two_processes_measure_and_draw_as_one(program, processes, whole):
    """Results would depend on the number of processes."""
    few = ("--ckpt", str(whole), "--set", "likelihood.batch_size=3", "--json")
    expected = program("likelihood", *few)
    first, second = in_two(processes, "likelihood", *few)
    assert (first.code, second.code, second.out) == (0, 0, "")
    found, alone = json.loads(first.out), json.loads(expected.out)
    assert (found.pop("device"), alone.pop("device")) == ("2 x cpu", "1 x cpu")
    assert found == alone
    assert program("sample", "--ckpt", str(whole), "-n", "150", "-o", "one.npy").code == 0
    assert in_two(processes, "sample", "--ckpt", str(whole), "-n", "150", "-o", "two.npy")[0].code == 0
    np.testing.assert_array_equal(*(np.load(processes.cwd / f"{name}.npy") for name in ("one", "two")))


@pytest.mark.slow
def test_a_signal_to_one_stops_both(processes, tiny, arrays, steps_logged):
    """The other would wait for ever, or they would save different steps."""
    run = ("run", tiny, "--out", "run")
    stopped = in_two(processes, *run, faults=("", "SIGTERM vdmkit.step ^3$"))
    assert [result.code for result in stopped] == [3, 3], stopped[0].err + stopped[1].err
    assert "process 0 of 2: Stopped at step" in stopped[0].err
    assert [result.code for result in in_two(processes, *run)] == [0, 0]
    assert [result.code for result in in_two(processes, "run", tiny, "--out", "undisturbed")] == [0, 0]
    found, expected = (arrays(processes.cwd / name) for name in ("run", "undisturbed"))
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
    assert steps_logged(processes.cwd / "run") == list(range(1, 13))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_death_of_one_ends_the_other(processes, tiny, killed):
    """A cluster would be paid for a run that stands still."""
    faults = tuple("SIGKILL vdmkit.step ^7$" if process == killed else "" for process in (0, 1))
    start = time.monotonic()
    results = in_two(processes, "run", tiny, "--out", "run", faults=faults)
    assert time.monotonic() - start < 240  # their start included
    assert results[killed].code == -9
    other = results[1 - killed]
    assert other.code != 0
    assert "another process has ended" in other.err or "another task died" in other.err
