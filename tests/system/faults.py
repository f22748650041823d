# SPDX-License-Identifier: Apache-2.0
"""A plugin that lets things go wrong at a chosen moment: VDMKIT_FAULTS="SIGKILL os.rename /manifest.json; ...".

A fault is an action, the name of one of Python's audit events, and a pattern that its arguments hold. The
event "vdmkit.step" is raised here, after every training step that was logged. Each fault happens once, when
those before it have.
"""

import errno
import os
import re
import resource
import signal
import sys

from vdmkit.report.metrics import MetricLog

FAULTS = [fault.split(maxsplit=2) for fault in os.environ.get("VDMKIT_FAULTS", "").split(";") if fault.strip()]


def act(action: str) -> None:
    """Do the harm: a signal, one write that finds no space, no large files from here on, or wait for the parent."""
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    elif action == "wait":
        print("waiting", flush=True)
        signal.pause()
    else:
        signal.raise_signal(signal.Signals[action])  # to this thread, now: from os.kill it may come later, anywhere


def hook(event: str, arguments: tuple) -> None:
    """Called by Python before it does what the event says."""
    if FAULTS and event == FAULTS[0][1] and re.search(FAULTS[0][2].strip(), " ".join(map(str, arguments))):
        act(FAULTS.pop(0)[0])


def scalars(log: MetricLog, step: int, values: dict[str, float], original=MetricLog.scalars) -> None:
    """MetricLog.scalars, and then the event."""
    original(log, step, values)
    sys.audit("vdmkit.step", step)


MetricLog.scalars = scalars
sys.addaudithook(hook)
