# SPDX-License-Identifier: Apache-2.0
"""A process that reads changed files, so that a file that hangs or fills the memory does not end the tests.

`python fuzzed.py` reads lines of JSON, {"kind", "count", "seed", "folder"}, and answers {"cases", "refused", "slowest",
"memory", "wrong"}: `slowest` is the time of the slowest case in seconds, `memory` the growth of the process in bytes,
and `wrong` a description of the first failure. The file that was read last stays in the folder.
"""

import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st
from kinds import KINDS, changed

from vdmkit.errors import VdmkitError

SECONDS, BYTES = 5, 10**9
STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")

_watched: list[tuple[str, list[str]]] = []


def watch(event: str, given: tuple) -> None:
    """Records processes that are started, and files that are changed outside the folder, while a file is read."""
    if not _watched:
        return
    folder, done = _watched[-1]
    writes = event in CHANGES or (event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR))
    if event in STARTS or (writes and not place_of(event, given).startswith((folder, "/dev/null"))):
        done.append(f"{event} {given}")


def place_of(event: str, given: tuple) -> str:
    """Returns the path of an audit event, which may be given by a descriptor or relative to an open folder."""
    path, *_, last = given
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    below = event != "open" and isinstance(last, int) and last >= 0
    return os.path.join(os.readlink(f"/proc/self/fd/{last}") if below else os.getcwd(), os.fsdecode(path))


def wrong_with(name: str, path: Path, data: bytes) -> tuple[bool, str]:
    """Reads a file. Returns whether it was refused, and a description of the failure or ''."""
    path.write_bytes(data)
    _watched.append((str(path.parent), []))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # CPU time, since other processes may be running
    signal.alarm(12 * SECONDS)  # wall-clock time, in case it blocks
    refused, words = False, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[name].read(path)
    except VdmkitError as error:
        refused = True
        if isinstance(error.__context__, MemoryError):
            words = "it asked for more memory than there is"
    except Exception:
        words = traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        _, done = _watched.pop()
    return refused, words or "; ".join(done)


def fuzz(kind: str, count: int, seed: int, folder: str) -> dict[str, Any]:
    """Reads `count` changed files of a kind, and stops at the first failure."""
    path, genuine = Path(folder, KINDS[kind].file), KINDS[kind].genuine()
    KINDS[kind].read(path) if path.write_bytes(KINDS[kind].wrap(genuine)) else None
    facts: dict[str, Any] = {"cases": 0, "refused": 0, "slowest": 0.0, "memory": 0, "wrong": ""}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(st.binary(min_size=8, max_size=64))
    def read_changed(choices: bytes) -> None:
        if facts["wrong"]:
            return
        start = time.process_time()
        refused, facts["wrong"] = wrong_with(kind, path, KINDS[kind].wrap(changed(genuine, choices)))
        facts["cases"] += 1
        facts["refused"] += refused
        facts["slowest"] = max(facts["slowest"], time.process_time() - start)
        facts["memory"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        if facts["memory"] > BYTES:
            facts["wrong"] = f"it took {facts['memory']:,} bytes"

    read_changed()
    return facts


def main() -> None:
    """Answers requests until the end of standard input."""
    sys.addaudithook(watch)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 8 * BYTES, resource.RLIM_INFINITY))  # protects others' memory
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(fuzz(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
