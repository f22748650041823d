# SPDX-License-Identifier: Apache-2.0
"""Commands that run in many processes: their options, and which process prints."""

import inspect
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import typer

from vdmkit.errors import printable

T = TypeVar("T")
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
        from vdmkit.distributed import start

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
    """Lets the first process alone print what all would; the libraries that connect processes print to stdout."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w")
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = nowhere if process else own
    sys.stderr = nowhere if process else sys.stderr


def end(message: object, code: int = 1, *, common: bool = False) -> NoReturn:
    """Ends the program with a message; of several processes each says which it is, or the first what is common."""
    _say(message, common=common)
    sys.exit(code)


def end_if_lost(error: Exception) -> None:
    """Ends the program at once if the end of another process caused an error; JAX would wait for that process."""
    from vdmkit.distributed import delete_copies, lost

    if found := lost(error):
        _say(found)
        delete_copies()
        os._exit(found.exit_code)


def _say(message: object, *, common: bool = False) -> None:
    from vdmkit.distributed import in_words, started_as

    place, message = started_as(), printable(str(message))
    if place is None:
        print(message, file=sys.stderr)
    elif place.process == 0 or not common:
        print(f"process {place.process} of {place.processes}: {in_words(message)}", file=sys.__stderr__, flush=True)
