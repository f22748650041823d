# SPDX-License-Identifier: Apache-2.0
"""Progress on standard error: a bar with time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Note = Callable[[], str]
Advance = Callable[..., None]
"""advance(n=1, note=None): n more are done; the note, asked for when it is shown, stands beside the bar."""
_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_NOTES = 1.0


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show how far `what` has come. Only the first of several processes shows anything."""
    if jax.process_index() > 0:
        yield lambda n=1, note=None: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield _on_bar(bar, bar.add_task(what, total=total, completed=done, note=""))
    else:
        yield _lines(what, total, done)


def _bar() -> Progress:
    counts = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn())
    times = (TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*counts, *times, console=Console(stderr=True))


def _on_bar(bar: Progress, task: TaskID) -> Advance:
    noted = 0.0

    def advance(n: int = 1, note: Note | None = None) -> None:
        nonlocal noted
        bar.update(task, advance=n)
        now = time.monotonic()
        if note and now - noted > _SECONDS_BETWEEN_NOTES:
            noted = now
            bar.update(task, note=note())

    return advance


def _lines(what: str, total: int, done: int) -> Advance:
    start = last = time.monotonic()
    first: tuple[float, int] | None = None  # time and count after the first advance, which waited for compilation

    def advance(n: int = 1, note: Note | None = None) -> None:
        nonlocal done, last, first
        done += n
        now = time.monotonic()
        first = first or (now, done)
        if now - last > _SECONDS_BETWEEN_LINES or done == total:
            last = now
            took = now - start
            pace = (now - first[0]) / (done - first[1]) if done > first[1] else 0.0
            left = f", {pace * (total - done):.0f} s left" if pace or done == total else ""
            text = f"{what}: {done:,}/{total:,}  {note() + '  ' if note else ''}{took:.0f} s{left}"
            print(text, file=sys.stderr, flush=True)

    return advance
