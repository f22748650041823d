# SPDX-License-Identifier: Apache-2.0
"""Ends a command on Ctrl-C with one message and exit code 3. SIGTERM does the same: see `main`."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

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
