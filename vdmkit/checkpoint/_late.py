# SPDX-License-Identifier: Apache-2.0
"""Late errors of TensorStore's threads, which on a full disk or a forged file report to a closed event loop.

The first error closes the loop, and Python and asyncio would print a traceback for each other one.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any


@contextmanager
def late_reports_unheard() -> Iterator[None]:
    """Silences them. After an error nobody awaits them, so this stays in force."""
    hook, log = sys.unraisablehook, logging.getLogger("asyncio")
    if getattr(hook, "func", None) is not _unless_late:
        sys.unraisablehook = partial(_unless_late, hook)
    log.disabled = True
    yield
    sys.unraisablehook, log.disabled = hook, False


def _unless_late(otherwise: Callable[[Any], object], report: Any) -> None:
    code = getattr(report.object, "cr_code", None)  # of a coroutine
    if str(report.exc_value) != "Event loop is closed" and not (code and "orbax" in Path(code.co_filename).parts):
        otherwise(report)
