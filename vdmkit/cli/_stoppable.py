# SPDX-License-Identifier: Apache-2.0
"""Ends a command on Ctrl-C or SIGTERM, which schedulers send, with one message and exit code 3."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial, wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from vdmkit.errors import Interrupted, VdmkitError

P = ParamSpec("P")
T = TypeVar("T")
_SECONDS = 8  # schedulers wait for 10 to 30 before they kill
_heard = threading.Event()
_IMPORTING = "<frozen importlib._bootstrap>"  # the file of the frames that import


def stoppable(command: Callable[P, T], what_now: str = "") -> Callable[P, T]:
    """Returns the command with a handler of Ctrl-C and SIGTERM, which Typer would treat as a failure of the program.

    Args:
        command: A command, or a function that it calls.
        what_now: What was kept, and how to continue. A command that knows more raises `Interrupted` itself.
    """

    @wraps(command)
    def answering(*arguments: P.args, **options: P.kwargs) -> T:
        before = _heard.is_set()
        _hear()
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise Interrupted(f"Stopped. {what_now}".rstrip()) from None
        except Exception as error:
            if isinstance(error, VdmkitError) or before or not _heard.is_set():
                raise
            # Code in C or Rust, pydantic's for example, makes an error of its own of the interruption
            raise Interrupted(f"Stopped. {what_now}".rstrip()) from error

    return answering


def _hear() -> None:
    """Lets SIGTERM interrupt as Ctrl-C does; until a command begins, both end the program: see `vdmkit.__main__`."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt; in an import only after it, because extension modules crash the process for it."""
    _heard.set()
    if any(one.f_code.co_filename == _IMPORTING for one, _ in traceback.walk_stack(frame)):
        _ask_again_soon()
    else:
        raise KeyboardInterrupt


def end_after_a_stop() -> None:
    """Lets a thread end the process that does not end by itself, seconds after Ctrl-C or SIGTERM.

    While XLA compiles for minutes Python hears neither, and what has heard may wait for a thread that compiles. Nothing
    is lost by it, because all files are written atomically. Training, which saves first, is not ended.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_after_a_stop, args=(reader,), daemon=True).start()


def _end_after_a_stop(reader: int) -> None:
    while number := os.read(reader, 1):
        if number[0] in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number[0]) is _interrupt:
            time.sleep(_SECONDS)
            os.write(2, b"Stopped. What was kept until now is used when the same command is run again.\n")
            os._exit(3)


def hear_again() -> None:
    """Asks again to stop if Ctrl-C or SIGTERM came inside a callback of garbage collection, JAX's for example.

    Python drops what is raised there, with a traceback: the command would go on as if nobody had asked it to stop.
    """
    if getattr(sys.unraisablehook, "func", None) is not _again:
        sys.unraisablehook = partial(_again, sys.unraisablehook)


def _again(otherwise: Callable[[Any], object], report: Any) -> None:
    if isinstance(report.exc_value, KeyboardInterrupt):
        _ask_again_soon()
    else:
        otherwise(report)


def _ask_again_soon() -> None:
    """Asks by SIGTERM, since the background jobs of a shell ignore Ctrl-C."""
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGTERM))
    timer.daemon = True
    timer.start()
