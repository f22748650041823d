# SPDX-License-Identifier: Apache-2.0
"""Turns Ctrl-C and SIGTERM into a request, which the loop obeys when its state is consistent."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from vdmkit.multihost import CommonStop


@contextmanager
def stop_requests(last: int) -> Iterator[Callable[[int], bool]]:
    """Yields a function that returns whether to stop after a step, as the user asked. A second Ctrl-C stops at once.

    Of several processes any may be asked, and all stop at the same step. After step `last` each must call the function.
    """
    asked, common = False, CommonStop()

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda step: common(asked, step, last=step >= last)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
