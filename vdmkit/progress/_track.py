# SPDX-License-Identifier: Apache-2.0
"""Reports the progress of a long computation to the console, to the caller's own meter, or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

from vdmkit.errors import RecipeError

Note = Callable[[], str]
Advance = Callable[..., None]
"""advance(n=1, note=None) reports n more done; `note` is called when the progress is shown, and stands beside it."""


@runtime_checkable
class Meter(Protocol):
    """An object that `progress` may be: it is notified of the start, of every advance, and of the end."""

    def start(self, what: str, total: int, done: int) -> None:
        """Called when `what`, such as "sampling", begins; `done` of `total` were done before."""
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
    """Yields the function that the task `what` calls to report progress, from `done` to `total`.

    Raises:
        RecipeError: `progress` is something else.
    """
    if progress is None:
        yield _nothing
    elif progress == "auto":
        from vdmkit.progress._console import on_console

        with on_console(what, total, done) as advance:
            yield advance
    elif not isinstance(progress, Meter):
        raise RecipeError(f'progress: expected None, "auto" or an object like Meter, found {progress!r}.')
    else:
        progress.start(what, total, done)
        try:
            yield progress.advance
        finally:
            progress.stop()


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Ignores every call, for `progress=None`."""
