# SPDX-License-Identifier: Apache-2.0
"""How Ctrl-C ends a command: in one message and exit code 3. SIGTERM does the same: see `main`."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from vdmkit.errors import Interrupted

P = ParamSpec("P")
T = TypeVar("T")


def stoppable(command: Callable[P, T], what_now: str = "") -> Callable[P, T]:
    """Returns the command with an answer to Ctrl-C, which Typer would take for a failure of the program.

    Args:
        command: A command, or what it calls.
        what_now: What was kept, and how to go on. A command that knows more raises `Interrupted` itself.
    """

    @wraps(command)
    def answering(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise Interrupted(f"Stopped. {what_now}".rstrip()) from None

    return answering
