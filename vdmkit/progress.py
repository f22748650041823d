# SPDX-License-Identifier: Apache-2.0
"""Progress of long computations: display, and partial results on disk.

Progress is reported to the caller's own meter, shown on standard error, or not shown at all. On standard error it is a
bar with the remaining time if that is a terminal, and otherwise an occasional line.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from vdmkit.errors import RecipeError
from vdmkit.io import read_measured, whole_file
from vdmkit.multihost import is_first

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Advance", "Meter", "Progress", "track"]

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_NOTES = 1.0
_SHORTEST = 1.0  # seconds; shorter tasks print no line
_NUMBER = "number_of_part"
_shown: list["Bar"] = []

Note = Callable[[], str]
Advance = Callable[..., None]
"""advance(n=1, note=None) reports n more done; `note` is called when the progress is shown, which includes its text."""


@runtime_checkable
class Meter(Protocol):
    """Protocol of an object passed as `progress`: it is notified of the start, of every advance, and of the end."""

    def start(self, what: str, total: int, done: int) -> None:
        """Called when `what`, such as "sampling", begins; `done` of `total` are already done."""
        ...

    def advance(self, n: int = 1, note: Note | None = None) -> None:
        """Called when `n` more are done."""
        ...

    def stop(self) -> None:
        """Called at the end, also after an error."""
        ...


Progress = Meter | Literal["auto"] | None
"""None shows nothing; "auto" shows a bar, or now and then a line, on standard error."""


@contextmanager
def track(progress: Progress, what: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Yields the function that reports progress of the task `what`, from `done` to `total`.

    With "auto", only the first of several processes shows progress.

    Raises:
        RecipeError: `progress` is not None, "auto" or a `Meter`.
    """
    if progress is None or (progress == "auto" and not is_first()):
        yield lambda n=1, note=None: None
    elif progress == "auto":
        clock = _Clock(total, done)
        if sys.stderr.isatty():
            with _on_bar(what, clock) as advance:
                yield advance
        else:
            yield _in_lines(what, clock)
    elif not isinstance(progress, Meter):
        raise RecipeError(f'progress: expected None, "auto" or an object like Meter, found {progress!r}.')
    else:
        progress.start(what, total, done)
        try:
            yield progress.advance
        finally:
            progress.stop()


@dataclass
class _Clock:
    """Measures the elapsed time, and estimates the remaining time from the pace since the first advance.

    The time before the first advance is mostly compilation, so it is excluded from the pace.
    """

    total: int
    done: int
    start: float = field(default_factory=lambda: time.monotonic())
    first: tuple[float, int] | None = None
    last: float = 0.0

    def advance(self, n: int) -> None:
        self.done += n
        self.last = time.monotonic()
        self.first = self.first or (self.last, self.done)

    @property
    def elapsed(self) -> float:
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
        elapsed = f"{timedelta(seconds=round(self.elapsed))} elapsed"
        return elapsed if self.left is None else f"{elapsed}, {timedelta(seconds=round(self.left))} left"


@contextmanager
def _on_bar(what: str, clock: _Clock) -> Iterator[Advance]:
    """Adds a bar to the current display, or opens one, because two displays would overwrite each other."""
    if _shown:
        task, advance = _added(_shown[0], what, clock)
        try:
            yield advance
        finally:
            _shown[0].remove_task(task)
    else:
        with _display() as bar:
            _shown.append(bar)
            try:
                yield _added(bar, what, clock)[1]
            finally:
                _shown.pop()


def _added(bar: "Bar", what: str, clock: _Clock) -> "tuple[TaskID, Advance]":
    task, noted = bar.add_task(what, total=clock.total, completed=clock.done, note="", clock=clock), 0.0

    def advance(n: int = 1, note: Note | None = None) -> None:
        nonlocal noted
        clock.advance(n)
        bar.update(task, advance=n)
        now = time.monotonic()
        if note and now - noted > _SECONDS_BETWEEN_NOTES:
            noted = now
            bar.update(task, note=note())

    return task, advance


def _display() -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[clock]}", table_column=Column(no_wrap=True)),
        console=Console(stderr=True),
    )


def _in_lines(what: str, clock: _Clock) -> Advance:
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


@dataclass(frozen=True)
class Kept:
    """Partial results of a measurement, kept in a folder until the measurement ends.

    The folder is named by a fingerprint of everything that the numbers depend on.
    """

    folder: Path

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a part by name, or None if it was not measured or its file is damaged or misplaced."""
        path = self.folder / f"{number}.npz"
        if not path.exists():
            return None
        try:
            arrays = read_measured(path)
            return arrays if int(arrays.pop(_NUMBER)) == number else None
        except Exception:  # damage raises errors of many types; the part is measured again
            return None

    def write(self, number: int, arrays: dict[str, Any]) -> None:
        """Writes a part; does nothing if the run folder is read-only."""
        if os.access(self.folder.parent.parent, os.W_OK):
            numbered: dict[str, Any] = {**arrays, _NUMBER: number}
            with suppress(FileNotFoundError):  # a concurrent measurement of the run ended and deleted all parts
                self.folder.mkdir(parents=True, exist_ok=True)
                with whole_file(self.folder / f"{number}.npz") as part, part.open("wb") as file:
                    np.savez(file, **numbered)

    def numbers(self) -> list[int]:
        """Returns the numbers of the parts that were written."""
        return [int(path.stem) for path in self.folder.glob("*.npz") if path.stem.isdecimal()]

    def clear(self) -> None:
        """Deletes the parts, including those of other measurements that did not finish."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
