# SPDX-License-Identifier: Apache-2.0
"""The common stop, with two processes that talk through a dictionary."""

import pytest

from vdmkit.multihost import CommonStop


class Board(dict):
    """JAX's coordinator. Nobody waits: what is not there yet is a failure."""

    key_value_set, blocking_key_value_get = dict.__setitem__, lambda self, key, patience: self[key]
    key_value_delete = dict.pop

    def key_value_dir_get(self, folder):
        return [key for key in self if key.startswith(folder)]


@pytest.fixture
def pair(monkeypatch):
    """The first and the second of two processes."""
    board, found = Board(), []
    monkeypatch.setattr("vdmkit.multihost.client", lambda: board)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    for process in (0, 1):
        monkeypatch.setattr("jax.process_index", lambda process=process: process)
        found.append(CommonStop())
        found[-1]._name = "stop"
    return found


@pytest.mark.parametrize("asked", [0, 1])
def test_both_stop_at_one_step(pair, asked):
    """One process would save at another step, or wait for ever in a step that the other does not take."""
    ends = {}
    for step in range(1, 1000):
        for process, stop in enumerate(pair):  # the first is always ahead, as it has to be
            if process not in ends and stop(process == asked and step >= 5, step, last=step == 999):
                ends[process] = step
    assert ends[0] == ends[1] >= 5


def test_a_request_at_the_last_step(pair):
    """One process would evaluate while the other ends."""
    first, second = pair
    assert not first(False, 7, last=True)
    assert not second(True, 7, last=True)  # too late: the first has gone on
    assert not first(True, 7, last=True)


def test_a_single_process_obeys_at_once():
    """Ctrl-C would be answered half a second later."""
    stop = CommonStop()
    assert not stop(False, 1)
    assert stop(True, 2)
