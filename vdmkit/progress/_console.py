# SPDX-License-Identifier: Apache-2.0
"""Progress on standard error: a bar with the remaining time on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from vdmkit.progress._track import Advance, Note

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_NOTES = 1.0
_SHORTEST = 1.0  # seconds; shorter tasks get no line
_shown: list[Progress] = []


@contextmanager
def on_console(what: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Shows the progress of `what`. Only the first of several processes shows anything."""
    if jax.process_index() > 0:
        yield lambda n=1, note=None: None
    elif sys.stderr.isatty():
        with _task(what, _Clock(total, done)) as advance:
            yield advance
    else:
        yield _lines(what, _Clock(total, done))


@dataclass
class _Clock:
    """Measures the elapsed time, and estimates the remaining time from the pace since the first advance.

    The time before the first advance is mostly compilation, so it does not count for the pace.
    """

    total: int
    done: int
    start: float = field(default_factory=lambda: time.monotonic())
    first: tuple[float, int] | None = None
    last: float = 0.0

    def advance(self, n: int) -> None:
        """Records that n more are done."""
        self.done += n
        self.last = time.monotonic()
        self.first = self.first or (self.last, self.done)

    @property
    def elapsed(self) -> float:
        """Seconds."""
        return time.monotonic() - self.start

    @property
    def left(self) -> float | None:
        """Returns the remaining seconds, or None before the second advance."""
        if self.done >= self.total:
            return 0.0
        if self.first is None or self.done == self.first[1]:
            return None
        pace = (self.last - self.first[0]) / (self.done - self.first[1])
        return max(pace * (self.total - self.done) - (time.monotonic() - self.last), 0.0)

    def __str__(self) -> str:
        elapsed = f"{_clock_time(self.elapsed)} elapsed"
        return elapsed if self.left is None else f"{elapsed}, {_clock_time(self.left)} left"


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def _task(what: str, clock: _Clock) -> Iterator[Advance]:
    """Adds a bar to the display that is shown, or opens one: two displays would overwrite each other."""
    if _shown:
        task = _add(_shown[0], what, clock)
        try:
            yield _on_bar(_shown[0], task, clock)
        finally:
            _shown[0].remove_task(task)
    else:
        with _bar() as bar:
            _shown.append(bar)
            try:
                yield _on_bar(bar, _add(bar, what, clock), clock)
            finally:
                _shown.pop()


def _bar() -> Progress:
    counts = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
    )
    return Progress(
        *counts, TextColumn("{task.fields[note]}"), _Times(Column(no_wrap=True)), console=Console(stderr=True)
    )


class _Times(ProgressColumn):
    """A column with the elapsed and remaining time of a task."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["clock"]))


def _add(bar: Progress, what: str, clock: _Clock) -> TaskID:
    return bar.add_task(what, total=clock.total, completed=clock.done, note="", clock=clock)


def _on_bar(bar: Progress, task: TaskID, clock: _Clock) -> Advance:
    noted = 0.0

    def advance(n: int = 1, note: Note | None = None) -> None:
        nonlocal noted
        clock.advance(n)
        bar.update(task, advance=n)
        now = time.monotonic()
        if note and now - noted > _SECONDS_BETWEEN_NOTES:
            noted = now
            bar.update(task, note=note())

    return advance


def _lines(what: str, clock: _Clock) -> Advance:
    last = clock.start

    def advance(n: int = 1, note: Note | None = None) -> None:
        nonlocal last
        clock.advance(n)
        ended = clock.done == clock.total and clock.elapsed >= _SHORTEST
        if ended or clock.last - last > _SECONDS_BETWEEN_LINES:
            last = clock.last
            text = f"{what}: {clock.done:,}/{clock.total:,}  {note() + '  ' if note else ''}{clock}"
            print(text, file=sys.stderr, flush=True)

    return advance
