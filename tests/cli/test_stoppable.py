# SPDX-License-Identifier: Apache-2.0
"""A request to stop is heard whenever it comes."""

import gc
import signal
import sys
import threading

import pytest

from vdmkit.cli._stoppable import hear_again


@pytest.fixture
def heard(monkeypatch):
    """The hook of the program, in this process."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    hear_again()
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_stop_during_garbage_collection_is_heard(heard, capsys):
    """False if SIGTERM were lost while JAX's callback of garbage collection runs, and the job were killed later."""

    def callback(phase: str, facts: dict) -> None:
        if phase == "stop":
            gc.callbacks.remove(callback)
            signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(callback)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        gc.collect()
        threading.Event().wait(60)
    assert capsys.readouterr().err == ""


def test_other_reports_are_printed(heard, monkeypatch):
    """False if errors that Python cannot raise were silenced."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    hear_again()

    class Fails:
        def __del__(self):
            raise ValueError

    Fails()
    gc.collect()
    assert [type(one.exc_value) for one in told] == [ValueError]
