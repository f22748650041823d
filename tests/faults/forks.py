# SPDX-License-Identifier: Apache-2.0
"""A process that has loaded vdmkit and runs each command in a fork of itself, with a fault at a given moment.

Loading takes most of the time of a short command. A request is a line of JSON: {"cwd", "arguments", "fault", "moment",
"amount"}. Moments are counted from 1: for the faults of DISK, when a file below `cwd` is about to be opened for
writing, renamed, made or deleted; for those of PLUGIN, when troubled.py or tiny.py is about to do something. The
answer is {"code", "moments", "seconds", "work", "err"}. `moments` has the numbers of both kinds of moments. `seconds`
is the wall-clock time from the fault to the end, and `work` the CPU time of this process in it.
"""

import errno
import importlib
import json
import mmap
import os
import resource
import signal
import struct
import sys
import threading
import time
from typing import Any

from vdmkit.cli.app import use_compilation_cache

LOADED = (
    "vdmkit.__main__",
    "vdmkit.experiments",
    "vdmkit.schedule_search",
    "vdmkit.conformance",
    "vdmkit.importers",
    "vdmkit_codec.api",
    "vdmkit_codec.commands",
    "vdmkit_codec.forecast",
    "matplotlib.pyplot",
)
DISK = ("KILL", "TERM", "FULL", "LIMIT")
"""Two signals, `amount` seconds later; from then on no file is opened for writing, or grows above `amount` bytes."""
PLUGIN = ("EIO", "ERROR", "DELAY")
"""What a plugin raises: the system's error of a broken disk, or one that nobody expects. Or `amount` seconds pass."""
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}
GROWS = ("open", "os.mkdir", "os.link")
SHARED = struct.Struct("qqdd")  # moments of DISK and PLUGIN, and when the fault came: time, and time of the process


def is_change(event: str, given: tuple, place: str) -> bool:
    """Returns whether an audit event changes a file below `place`, or one with a relative path."""
    writes = event in CHANGES or (event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR))
    path = os.fsdecode(given[0]) if writes and not isinstance(given[0], int) else ""
    return bool(path) and (path.startswith(place) or not os.path.isabs(path))


class Hook:
    """An audit hook, which Python calls before each audited operation."""

    def __init__(self, request: dict[str, Any], shared: mmap.mmap):
        self.fault, self.moment, self.amount = request["fault"], request["moment"], request["amount"]
        self.place, self.shared, self.lock, self.full = os.getcwd(), shared, threading.Lock(), False

    def __call__(self, event: str, given: tuple) -> None:
        if event == "troubled":
            self.count(1, PLUGIN)
        elif is_change(event, given, self.place):
            self.count(0, DISK)
            if self.full and event in GROWS:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), given[0])

    def count(self, number: int, faults: tuple[str, ...]) -> None:
        with self.lock:
            *counts, came, worked = SHARED.unpack_from(self.shared)
            counts[number] += 1
            SHARED.pack_into(self.shared, 0, *counts, came, worked)
        if self.fault in faults and counts[number] == self.moment:
            self.happen()

    def happen(self) -> None:
        if self.fault in ("KILL", "TERM"):
            self.send_later() if self.amount else self.send()
            return
        self.note()
        if self.fault == "FULL":
            self.full = True
        elif self.fault == "LIMIT":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(self.amount), resource.RLIM_INFINITY))
        elif self.fault == "EIO":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        elif self.fault == "ERROR":
            raise RuntimeError("trouble")
        else:
            time.sleep(self.amount)  # as a slow disk or network does

    def send_later(self) -> None:
        timer = threading.Timer(self.amount, self.send)
        timer.daemon = True
        timer.start()

    def send(self) -> None:
        self.note()
        os.kill(os.getpid(), signal.Signals[f"SIG{self.fault}"])

    def note(self) -> None:
        counts = SHARED.unpack_from(self.shared)[:2]
        SHARED.pack_into(self.shared, 0, *counts, time.monotonic(), time.process_time())


def be(request: dict[str, Any], shared: mmap.mmap) -> None:
    """Runs the command in this process."""
    os.chdir(request["cwd"])
    sys.addaudithook(Hook(request, shared))
    from vdmkit.__main__ import main

    sys.argv = ["vdmkit", *request["arguments"]]
    main()


def answer(request: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the result of a command. In the fork that runs the command, it returns None or raises SystemExit."""
    shared = mmap.mmap(-1, SHARED.size)
    read, write = os.pipe()  # not a file, whose size would be limited too
    child = os.fork()
    if not child:
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor, file in enumerate((nothing, nothing, write)):
            os.dup2(file, descriptor)
        be(request, shared)
        return None
    os.close(write)
    with os.fdopen(read) as err:
        words = err.read()
    _, status, used = os.wait4(child, 0)
    *moments, came, worked = SHARED.unpack_from(shared)
    took = {"seconds": time.monotonic() - came, "work": used.ru_utime + used.ru_stime - worked} if came else {}
    return {"code": os.waitstatus_to_exitcode(status), "moments": moments, "err": words, **took}


def main() -> None:
    """Answers requests until the end of standard input."""
    use_compilation_cache()
    for name in LOADED:
        importlib.import_module(name)
    for line in iter(sys.stdin.readline, ""):
        found = answer(json.loads(line))
        if found is None:
            return
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
