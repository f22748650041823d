# SPDX-License-Identifier: Apache-2.0
"""Signal handling of commands, and commands that run in several processes.

Ctrl-C and SIGTERM, which schedulers send, end a command with one message and exit code 3. `distributed` adds the
options that connect processes, and only process 0 prints.
"""

import inspect
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial, wraps
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn, ParamSpec, TypeVar

import typer

from vdmkit.errors import Interrupted, VdmkitError, printable

P = ParamSpec("P")
T = TypeVar("T")
_SECONDS = 8  # schedulers wait 10 to 30 seconds before they kill
_heard = threading.Event()
_IMPORTING = "<frozen importlib._bootstrap>"  # file name of frames inside an import


def stoppable(command: Callable[P, T], what_now: str = "") -> Callable[P, T]:
    """Returns the command with a handler of Ctrl-C and SIGTERM, which Typer would treat as a failure of the program.

    Args:
        command: A command, or a function that it calls.
        what_now: What was saved and how to continue. A command with a more specific message raises `Interrupted`
            itself.
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
            # C or Rust extensions such as pydantic turn KeyboardInterrupt into an error of their own.
            raise Interrupted(f"Stopped. {what_now}".rstrip()) from error

    return answering


def _hear() -> None:
    """Makes SIGTERM interrupt like Ctrl-C; before the command begins, both exit the process (see `vdmkit.__main__`)."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt; during an import it is deferred, because it would crash extension modules."""
    _heard.set()
    if any(one.f_code.co_filename == _IMPORTING for one, _ in traceback.walk_stack(frame)):
        _ask_again_soon()
    else:
        raise KeyboardInterrupt


def end_after_a_stop() -> None:
    """Starts a thread that exits the process if it is still running some seconds after Ctrl-C or SIGTERM.

    Python cannot handle signals while XLA compiles, which may take minutes, and the handler may wait for a thread that
    compiles. No data is lost, because all files are written atomically. Training, which saves first, is exempt.
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
    """Sends the signal again if KeyboardInterrupt was raised inside a garbage collection callback, such as JAX's.

    Python only prints exceptions raised there, so the command would ignore the request to stop.
    """
    if getattr(sys.unraisablehook, "func", None) is not _again:
        sys.unraisablehook = partial(_again, sys.unraisablehook)


def _again(otherwise: Callable[[Any], object], report: Any) -> None:
    if isinstance(report.exc_value, KeyboardInterrupt):
        _ask_again_soon()
    else:
        otherwise(report)


def _ask_again_soon() -> None:
    """Sends SIGTERM, because background jobs of a shell ignore Ctrl-C."""
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGTERM))
    timer.daemon = True
    timer.start()


_HELP = "How this process finds the others: by JAX's detection, one cluster's, or the options below."
_OPTIONS = {
    "distributed": Annotated[
        Literal["off", "auto", "slurm", "mpi4py", "k8s", "explicit"], typer.Option("--distributed", help=_HELP)
    ],
    "coordinator": Annotated[
        str | None,
        typer.Option(
            "--coordinator", metavar="HOST:PORT", help="Of process 0, for explicit. Default: JAX_COORDINATOR_ADDRESS."
        ),
    ],
    "processes": Annotated[
        int | None,
        typer.Option("--processes", min=1, help="How many there must be. Default for explicit: JAX_NUM_PROCESSES."),
    ],
    "process": Annotated[
        int | None, typer.Option("--process", min=0, help="Which this one is, for explicit. Default: JAX_PROCESS_ID.")
    ],
}


def distributed(command: Callable[..., T]) -> Callable[..., T]:
    """Returns the command with options that connect it to other processes before JAX is used."""

    @wraps(command)
    def connected(**options: Any) -> T:
        mode, *others = (options.pop(name) for name in _OPTIONS)
        if (mode, *others) == ("off", None, None, None):
            return command(**options)
        from vdmkit.multihost import start

        place = start(mode, *others)
        if place is not None:
            print(place, file=sys.stderr, flush=True)
            _let_first_speak(place.process)
        return command(**options)

    signature = inspect.signature(command)
    defaults = dict.fromkeys(_OPTIONS) | {"distributed": "off"}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    connected.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    connected.__annotations__ = {**command.__annotations__, **_OPTIONS}
    return connected


def _let_first_speak(process: int) -> None:
    """Silences all processes except process 0, and stdout of the libraries that connect them."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w")
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = nowhere if process else own
    sys.stderr = nowhere if process else sys.stderr


def end(message: object, code: int = 1, *, common: bool = False) -> NoReturn:
    """Exits with a message. Several processes add their index, or process 0 alone prints a `common` message."""
    _say(message, common=common)
    sys.exit(code)


def end_if_lost(error: Exception) -> None:
    """Exits at once if the exit of a different process caused the error, because JAX would wait for that process."""
    from vdmkit.multihost import delete_copies, lost

    if found := lost(error):
        _say(found)
        delete_copies()
        os._exit(found.exit_code)


def _say(message: object, *, common: bool = False) -> None:
    from vdmkit.multihost import in_words, started_as

    place, message = started_as(), printable(str(message))
    if place is None:
        print(message, file=sys.stderr)
    elif place.process == 0 or not common:
        print(f"process {place.process} of {place.processes}: {in_words(message)}", file=sys.__stderr__, flush=True)
