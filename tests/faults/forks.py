# SPDX-License-Identifier: Apache-2.0
"""A process that has loaded vdmkit and runs each command in a fork of itself, which is sent a signal at a moment.

Loading takes most of the time of a short command. A request is a line of JSON: {"cwd", "arguments", "signal",
"moment", "delay"}. A moment is when a file below `cwd` is about to be opened for writing, renamed, made or deleted;
they are counted from 1, and the signal comes `delay` seconds after one. The answer is {"code", "moments", "seconds",
"work", "err"}; from the signal to the end `seconds` pass, of which `work` of this process.
"""

import importlib
import json
import mmap
import os
import signal
import struct
import sys
import tempfile
import threading
import time
from typing import Any

from vdmkit.cli._compiled import keep_compiled

LOADED = (
    "vdmkit.__main__",
    "vdmkit.run",
    "vdmkit.study",
    "vdmkit.testing",
    "vdmkit.importers",
    "vdmkit_codec.codec",
    "matplotlib.pyplot",
)
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}
SHARED = struct.Struct("qdd")  # moments so far, and when the signal was sent: time, and time of the process


def is_change(event: str, given: tuple, place: str) -> bool:
    """Returns whether an audit event is the change of a file below `place`, or one named from there."""
    writes = event in CHANGES or (event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR))
    path = os.fsdecode(given[0]) if writes and not isinstance(given[0], int) else ""
    return bool(path) and (path.startswith(place) or not os.path.isabs(path))


def be(request: dict[str, Any], shared: mmap.mmap) -> None:
    """Is the command, in this process."""
    os.chdir(request["cwd"])
    place, number, lock = os.getcwd(), signal.Signals[f"SIG{request['signal']}"], threading.Lock()

    def send() -> None:
        SHARED.pack_into(shared, 0, request["moment"], time.monotonic(), time.process_time())
        os.kill(os.getpid(), number)

    def hook(event: str, given: tuple) -> None:
        if not is_change(event, given, place):
            return
        with lock:
            count, *sent = SHARED.unpack_from(shared)
            SHARED.pack_into(shared, 0, count + 1, *sent)
        if count + 1 == request["moment"] and request["delay"]:
            timer = threading.Timer(request["delay"], send)
            timer.daemon = True
            timer.start()
        elif count + 1 == request["moment"]:
            send()

    sys.addaudithook(hook)
    from vdmkit.__main__ import main

    sys.argv = ["vdmkit", *request["arguments"]]
    main()


def answer(request: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what became of the command; in the fork that is the command, it returns None or raises SystemExit."""
    shared = mmap.mmap(-1, SHARED.size)
    with tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor, file in enumerate((nothing, nothing, err.fileno())):
                os.dup2(file, descriptor)
            be(request, shared)
            return None
        _, status, used = os.wait4(child, 0)
        moments, sent, worked = SHARED.unpack_from(shared)
        err.seek(0)
        words = err.read().decode()
    took = {"seconds": time.monotonic() - sent, "work": used.ru_utime + used.ru_stime - worked} if sent else {}
    return {"code": os.waitstatus_to_exitcode(status), "moments": moments, "err": words, **took}


def main() -> None:
    """Answers until the end of standard input."""
    keep_compiled()
    for name in LOADED:
        importlib.import_module(name)
    for line in iter(sys.stdin.readline, ""):
        found = answer(json.loads(line))
        if found is None:
            return
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
