# SPDX-License-Identifier: Apache-2.0
"""Progress: lines where nobody watches, a bar on a terminal, and nothing from a second process."""

import io
import sys

import jax
import pytest

from vdmkit.report import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the start, under the test's control."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_lines_come_now_and_then_and_at_the_end(clock, capsys):
    """A log file would fill with a line per step, or not say how it ended, or a resumed run's time left be wrong."""
    with progress("training", 100, 40) as advance:
        for step in range(41, 101):
            clock[0] += 1.0
            advance(1, lambda step=step: f"bpd {step}")
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.split() == ["training:", "56/100", "bpd", "56", "16", "s,", "44", "s", "left"]
    assert last.split() == ["training:", "100/100", "bpd", "100", "60", "s,", "0", "s", "left"]


def test_a_bar_on_a_terminal(monkeypatch):
    """A user at a terminal would not see how far the run is."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("training", 10, 3) as advance:
        for _ in range(7):
            advance(1, lambda: "bpd 1.234")
    shown = terminal.getvalue()
    assert "10/10" in shown
    assert "bpd 1.234" in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_to_do(terminal, monkeypatch, capsys):
    """Continuing a finished run would divide by zero."""
    if terminal:
        monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("training", 10, 10):
        pass
    assert capsys.readouterr().out == ""


def test_only_the_first_process_speaks(monkeypatch, capsys):
    """Every process of a run on several machines would print the same lines."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with progress("training", 1) as advance:
        advance(1, lambda: pytest.fail("the note is not needed"))
    assert capsys.readouterr() == ("", "")
