# SPDX-License-Identifier: Apache-2.0
"""Progress: lines where nobody watches, a bar on a terminal, and nothing from a second process."""

import io
import re
import sys

import jax
import pytest

from vdmkit.progress import track


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
    with track("auto", "training", 100, 40) as advance:
        for step in range(41, 101):
            clock[0] += 1.0
            advance(1, lambda step=step: f"bpd {step}")
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "training: 56/100  bpd 56  0:00:16 elapsed, 0:00:44 left"
    assert last == "training: 100/100  bpd 100  0:01:00 elapsed, 0:00:00 left"


def test_what_takes_no_time_gets_no_line(clock, capsys):
    """A run that is evaluated now and then would fill its log with lines that say nothing."""
    with track("auto", "evaluating", 4) as advance:
        clock[0] += 0.5
        advance(4)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch):
    """A user at a terminal would not see how far the run is."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with track("auto", "training", 10, 3) as advance:
        for _ in range(7):
            advance(1, lambda: "bpd 1.234")
    shown = terminal.getvalue()
    assert "10/10" in shown
    assert "bpd 1.234" in shown


def test_a_bar_says_which_time_is_which(clock, monkeypatch):
    """A user would take the time that went by for the time left; or the pace be that of compilation."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    with track("auto", "training", 100) as advance:
        clock[0] += 20.0  # compilation
        advance()
        for _ in range(10):
            clock[0] += 2.0
            advance()
        clock[0] += 1.0
    assert "0:00:41 elapsed, 0:02:57 left" in terminal.getvalue()  # 89 steps of 2 s, one second ago


def test_a_bar_fits_a_terminal_of_80_columns(clock, monkeypatch):
    """The time left would be on a second line, which the bar leaves behind."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    with track("auto", "likelihood", 100_000) as advance:
        clock[0] += 20.0
        advance(1, lambda: "train bpd 12.034")
        clock[0] += 2.0
        advance(99_998)
    assert "99999/100000 train bpd 12.034 0:00:22 elapsed, 0:00:00 left" in re.sub(
        r"\x1b\[[0-9;]*m", "", terminal.getvalue()
    )


def test_a_bar_within_a_bar(monkeypatch):
    """Two displays would overwrite each other, or what is done stay on the screen beside what is not."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with track("auto", "training", 10) as advance:
        advance()
        with track("auto", "evaluating", 4) as evaluated:
            evaluated(4)
        before = len(terminal.getvalue())
        advance(9)
    shown = terminal.getvalue()
    assert "evaluating" in shown[:before]
    assert "10/10" in shown[before:]
    assert "evaluating" not in shown[before:]


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_to_do(terminal, monkeypatch, capsys):
    """Continuing a finished run would divide by zero."""
    if terminal:
        monkeypatch.setattr(sys, "stderr", Terminal())
    with track("auto", "training", 10, 10):
        pass
    assert capsys.readouterr().out == ""


def test_only_the_first_process_speaks(monkeypatch, capsys):
    """Every process of a run on several machines would print the same lines."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with track("auto", "training", 1) as advance:
        advance(1, lambda: pytest.fail("the note is not needed"))
    assert capsys.readouterr() == ("", "")
