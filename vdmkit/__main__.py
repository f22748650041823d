# SPDX-License-Identifier: Apache-2.0
"""Entry point of `python -m vdmkit` and of the `vdmkit` script."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Runs the program. Ctrl-C and SIGTERM exit with code 3, even before the command begins."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell ignores Ctrl-C in background jobs
            signal.signal(number, _end_at_once)
    from vdmkit.cli.app import main as program
    from vdmkit.cli.processes import end_after_a_stop

    end_after_a_stop()
    try:
        program()
    except SystemExit as ended:
        _end_at_once_if_stopped(ended.code)
        raise
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a signal during Python's shutdown would change the exit code


def _end_at_once_if_stopped(code: object) -> None:
    """Exits the process at once after a stop, because XLA may crash if Python tears it down while it is computing.

    One of several processes shuts down normally instead, so that it disconnects from the others.
    """
    from vdmkit.errors import Interrupted
    from vdmkit.multihost import started_as

    if code == Interrupted.exit_code and started_as() is None:
        with suppress(OSError):  # the reader of a pipe may have closed it
            sys.stdout.flush()
        os._exit(Interrupted.exit_code)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Exits the process. An exception raised during an import could be mistaken for an error of the imported module."""
    os.write(2, b"Stopped before the command began.\n")
    os._exit(3)


if __name__ == "__main__":
    main()
