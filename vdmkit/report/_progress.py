# SPDX-License-Identifier: Apache-2.0
"""Progress on standard error: a bar with time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[..., None]
"""advance(n=1, note=""): n more are done; the note stands beside the bar."""
_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show how far `what` has come. Only the first of several processes shows anything."""
    if jax.process_index() > 0:
        yield lambda n=1, note="": None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(what, total=total, completed=done, note="")
            yield lambda n=1, note="": bar.update(task, advance=n, note=note)
    else:
        yield _lines(what, total, done)


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(
        *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)
    )


def _lines(what: str, total: int, done: int) -> Advance:
    start = last = time.monotonic()
    first = done

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last > _SECONDS_BETWEEN_LINES or done == total:
            last = now
            left = (now - start) / (done - first) * (total - done)
            print(
                f"{what}: {done:,}/{total:,}  {note}  {now - start:.0f} s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    return advance
