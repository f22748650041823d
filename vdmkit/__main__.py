# SPDX-License-Identifier: Apache-2.0
"""`python -m vdmkit` is the `vdmkit` program, and so is the script of that name."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Runs the program. Ctrl-C and SIGTERM end it with exit code 3 before its command begins too."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell asks for Ctrl-C in its background jobs
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
            signal.signal(number, signal.SIG_IGN)  # Python takes a while to end, and would lose the exit code


def _end_at_once_if_stopped(code: object) -> None:
    """Ends the process after a stop: XLA, interrupted in its work, may crash when Python deletes it.

    One of several processes takes leave of the others first, as Python ends.
    """
    from vdmkit.errors import Interrupted
    from vdmkit.multihost import started_as

    if code == Interrupted.exit_code and started_as() is None:
        with suppress(OSError):  # what reads the output may be gone
            sys.stdout.flush()
        os._exit(Interrupted.exit_code)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Ends the process: an exception raised in the middle of an import may be taken for one of the module."""
    os.write(2, b"Stopped before the command began.\n")
    os._exit(3)


if __name__ == "__main__":
    main()
