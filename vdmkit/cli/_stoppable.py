# SPDX-License-Identifier: Apache-2.0
"""Ends a command on Ctrl-C with one message and exit code 3. SIGTERM does the same: see `main`."""

import signal
import sys
import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from vdmkit.errors import Interrupted

P = ParamSpec("P")
T = TypeVar("T")


def stoppable(command: Callable[P, T], what_now: str = "") -> Callable[P, T]:
    """Returns the command with a handler of Ctrl-C, which Typer would treat as a failure of the program.

    Args:
        command: A command, or a function that it calls.
        what_now: What was kept, and how to continue. A command that knows more raises `Interrupted` itself.
    """

    @wraps(command)
    def answering(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise Interrupted(f"Stopped. {what_now}".rstrip()) from None

    return answering


def hear_again() -> None:
    """Asks again to stop if Ctrl-C or SIGTERM came inside a callback of garbage collection, JAX's for example.

    Python drops what is raised there, with a traceback: the command would go on as if nobody had asked it to stop. It
    asks by SIGTERM, since the background jobs of a shell ignore Ctrl-C.
    """
    if getattr(sys.unraisablehook, "func", None) is not _again:
        sys.unraisablehook = partial(_again, sys.unraisablehook)


def _again(otherwise: Callable[[Any], object], report: Any) -> None:
    if not isinstance(report.exc_value, KeyboardInterrupt):
        otherwise(report)
        return
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGTERM))  # when the callback has ended
    timer.daemon = True
    timer.start()
