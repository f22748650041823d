# SPDX-License-Identifier: Apache-2.0
"""How a long computation tells how far it has come: to nobody, to the console, or to a meter of the caller's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

Note = Callable[[], str]
Advance = Callable[..., None]
"""advance(n=1, note=None): n more are done; the note, asked for when it is shown, stands beside the bar."""


@runtime_checkable
class Meter(Protocol):
    """What `progress` may be: an object that is told of the start, of every advance, and of the end."""

    def start(self, what: str, total: int, done: int) -> None:
        """`what`, such as "sampling", begins; `done` of `total` were done before."""
        ...

    def advance(self, n: int = 1, note: Note | None = None) -> None:
        """`n` more are done."""
        ...

    def stop(self) -> None:
        """It has ended, or failed."""
        ...


Progress = Meter | Literal["auto"] | None
"""None shows nothing; "auto" shows a bar, or now and then a line, on standard error."""


@contextmanager
def track(progress: Progress, what: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Gives the function that `what`, while it goes from `done` to `total`, calls to say that more is done."""
    if progress is None:
        yield _nothing
    elif progress == "auto":
        from vdmkit.progress._console import on_console  # rich takes a while to import

        with on_console(what, total, done) as advance:
            yield advance
    else:
        progress.start(what, total, done)
        try:
            yield progress.advance
        finally:
            progress.stop()


def _nothing(*args: Any, **kwargs: Any) -> None:
    """What is called when nobody wants to know."""
