# SPDX-License-Identifier: Apache-2.0
"""Runs of several processes: JAX's distributed runtime, collectives, a common stop, and run folders.

- `start` connects the processes only on request, because an environment that looks like a cluster may be a single
  shell in an allocation.
- Collectives are no-ops with one process.
- `lost` recognises errors that are caused by the exit of a different process.
- `CommonStop` makes all processes stop at the same step, although a signal may reach only one of them. At some steps
  process 0 publishes whether to continue and at which step it will decide again, about half a second later. The others
  wait for that decision; by then they have dispatched everything that process 0 needs to reach the step. No process
  waits for one that received a signal, because a step that others have dispatched needs all of them.
- `own_folder`: process 0 writes to the run folder, the others to temporary copies that are deleted. So all processes do
  the same in the same order, and only process 0 leaves files. Checkpoints are written by all.
"""

import atexit
import importlib.util
import io
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vdmkit.errors import DistributedError, RecipeError

if TYPE_CHECKING:
    import numpy as np

_CONNECT = 300  # seconds; nodes of a cluster start at different times
_SILENT = 40  # seconds without a heartbeat, after which JAX ends the other processes
_AT_EXIT = 30  # seconds that a process waits for the others when it exits
_VARIABLES = {
    "coordinator": ("--coordinator", "JAX_COORDINATOR_ADDRESS"),
    "processes": ("--processes", "JAX_NUM_PROCESSES"),
    "process": ("--process", "JAX_PROCESS_ID"),
}
_place: "Place | None" = None


@dataclass(frozen=True)
class Place:
    """Index of this process (from 0), number of processes, and numbers of local and global devices."""

    process: int
    processes: int
    local_devices: int
    devices: int
    kind: str

    def __str__(self) -> str:
        share = f"{self.local_devices} of {self.devices} devices, {self.kind}"
        return f"process {self.process} of {self.processes}, {share}"


def started_as() -> Place | None:
    """Returns the index and number of the processes that `start` connected, or None for a single process."""
    return _place


def start(
    mode: str, coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Place | None:
    """Connects this process to the others before JAX is used; does nothing with mode "off".

    Args:
        mode: "auto" uses JAX's detection; "explicit" uses the other arguments or JAX's environment variables.
        coordinator: Host and port of process 0.
        processes: Expected number of processes, in any mode.
        process: Index of this process.

    Raises:
        RecipeError: the arguments do not fit the mode.
        DistributedError: the processes cannot connect, their number is not the expected one, or they have different
            numbers of devices.
    """
    global _place
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    if mode == "off":
        return _refuse_alone(given)
    _connect(mode, _arguments(mode, given))
    _place = _found(processes)
    return _place


def _refuse_alone(given: dict[str, Any]) -> None:
    if given["processes"] not in (None, 1):
        raise DistributedError(
            f"--processes {given['processes']}: found 1, this one. Say how to find the others with --distributed."
        )
    _refuse_needless("off", {name: value for name, value in given.items() if name != "processes"})


def _refuse_needless(mode: str, given: dict[str, Any]) -> None:
    needless = [_VARIABLES[name][0] for name, value in given.items() if value is not None]
    if needless:
        raise RecipeError(f"{', '.join(needless)}: only --distributed explicit takes this, not {mode}.")


def _arguments(mode: str, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `jax.distributed.initialize`."""
    if mode != "explicit":
        _refuse_needless(mode, {name: value for name, value in given.items() if name != "processes"})
        if mode == "mpi4py" and not importlib.util.find_spec("mpi4py"):
            raise DistributedError("--distributed mpi4py: the package mpi4py is not installed. Install vdmkit[mpi].")
        if mode == "k8s" and "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise DistributedError("--distributed k8s: this is not a pod, as KUBERNETES_SERVICE_HOST is not set.")
        # JAX has no method name for Kubernetes; in a pod its automatic detection chooses it.
        return {"cluster_detection_method": mode} if mode in ("slurm", "mpi4py") else {}
    found: dict[str, Any] = {
        name: os.environ.get(variable) if given[name] is None else given[name]
        for name, (_, variable) in _VARIABLES.items()
    }
    missing = [" or ".join(_VARIABLES[name]) for name, value in found.items() if value in (None, "")]
    if missing:
        raise RecipeError(f"--distributed explicit: give {', '.join(missing)}.")
    total, number = _integer("processes", found["processes"]), _integer("process", found["process"])
    if not 0 <= number < total:
        raise RecipeError(f"--process {number}: expected 0 to {total - 1}, as there are {total} processes.")
    host, _, port = found["coordinator"].rpartition(":")
    if not host or not port.isdecimal():
        raise RecipeError(f"--coordinator {found['coordinator']}: expected HOST:PORT of process 0.")
    return {
        "coordinator_address": found["coordinator"],
        "num_processes": total,
        "process_id": number,
        "cluster_detection_method": "deactivate",
    }


def _integer(name: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        option, variable = _VARIABLES[name]
        raise RecipeError(f"{option} or {variable}: expected a number, found {value!r}.") from None


def _connect(mode: str, arguments: dict[str, Any]) -> None:
    import jax

    timeouts: dict[str, Any] = {
        "initialization_timeout": _CONNECT,
        "heartbeat_timeout_seconds": _SILENT,
        "shutdown_timeout_seconds": _AT_EXIT,
    }
    try:
        jax.distributed.initialize(**arguments, **timeouts)
    except Exception as error:  # the type depends on the cluster
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DistributedError(f"--distributed {mode}: no connection to the other processes: {reason}") from error


def _found(processes: int | None) -> Place:
    import jax

    local, total = jax.local_device_count(), jax.device_count()
    place = Place(jax.process_index(), jax.process_count(), local, total, jax.devices()[0].device_kind)
    if processes not in (None, place.processes):
        raise DistributedError(f"--processes {processes}: found {place.processes}.")
    if local * place.processes != total:
        raise DistributedError(f"{place}: every process must have as many devices as the others.")
    return place


T = TypeVar("T")
_DAY_MS = 24 * 60 * 60 * 1000  # a process may compile or measure for hours
_numbers = itertools.count()


def is_first() -> bool:
    """Returns whether this is process 0, which prints and writes."""
    import jax

    return jax.process_index() == 0


def is_alone() -> bool:
    """Returns whether there is only one process."""
    import jax

    return jax.process_count() == 1


def share_of(items: Sequence[T]) -> Sequence[T]:
    """Returns this process's items: every n-th of n processes, starting at the index of this one."""
    import jax

    return items[jax.process_index() :: jax.process_count()]


def client() -> Any:
    """Returns the client of the coordinator, which connects processes without using their devices."""
    from jax._src import distributed  # JAX has no public name for it

    return distributed.global_state.client


def meet() -> None:
    """Waits for all processes. All must call it, equally often and in the same order."""
    if not is_alone():
        client().wait_at_barrier(f"vdmkit/{next(_numbers)}", _DAY_MS)


def gathered(arrays: Mapping[str, "np.ndarray"]) -> list[dict[str, "np.ndarray"]]:
    """Returns the arrays of every process, in the order of their indices. All must call it."""
    if is_alone():
        return [dict(arrays)]
    import numpy as np
    from jax.experimental import multihost_utils

    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)  # as bytes, because JAX would convert float64 to float32
    mine = np.frombuffer(file.getvalue(), np.uint8)
    meet()  # a collective times out sooner
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray([len(mine)], np.int32))).ravel()
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(mine)] = mine
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [_read(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def as_first(arrays: Mapping[str, "np.ndarray"]) -> dict[str, "np.ndarray"]:
    """Returns the arrays of process 0, for values that may differ, such as a time. All must call it."""
    return gathered(arrays if is_first() else {})[0]


def _read(contents: bytes) -> dict[str, "np.ndarray"]:
    import numpy as np

    with np.load(io.BytesIO(contents)) as file:
        return {name: file[name] for name in file.files}


_SIGNS = ("gloo", "nccl", "coordination", "heartbeat", "barrier", "connection", "unavailable", "socket")


def lost(error: Exception) -> DistributedError | None:
    """Returns the error to report if `error` was caused by the exit of a different process, and None otherwise."""
    text = str(error).strip().partition("\n")[0]
    if started_as() is None or not any(sign in str(error).lower() for sign in _SIGNS):
        return None
    return DistributedError(
        f"another process has ended, or cannot be reached ({text[:160]}). What was saved is kept: to go on, start all "
        "processes again with the same command."
    )


_BETWEEN = 0.5  # seconds between two decisions
_PATIENCE_MS = 1000  # short, so that a second Ctrl-C is handled
_KEPT = 100  # decisions that the coordinator keeps for processes that lag


class CommonStop:
    """Decides at which training step all processes stop."""

    def __init__(self):
        import jax

        self._process, self._processes = jax.process_index(), jax.process_count()
        self._name = f"vdmkit/stop/{next(_numbers)}"
        self._told = False  # whether this process has published its request
        self._verdict: bool | None = None  # the final decision
        self._next, self._said, self._time = 0, list[int](), time.monotonic()

    def __call__(self, asked: bool, step: int, *, last: bool = False) -> bool:
        """Returns whether to stop after `step`. All processes must call it at the same steps.

        Args:
            asked: Whether this process received a request to stop.
            step: The step, increasing from call to call.
            last: Whether this is the last step.
        """
        if self._processes == 1:
            return asked
        if asked and not self._told:
            client().key_value_set(f"{self._name}/asked/{self._process}", "")
            self._told = True
        if self._verdict is None and (last or step >= self._next):
            word = self._say(asked, step) if self._process == 0 else self._hear(step)
            stop, self._next = word
            self._verdict = stop if stop or last else None
        return bool(self._verdict)

    def _say(self, asked: bool, step: int) -> tuple[bool, int]:
        stop = asked or bool(client().key_value_dir_get(f"{self._name}/asked/"))
        steps = step - self._said[-1] if self._said else 0
        pace = steps / max(time.monotonic() - self._time, 1e-3)
        following = step + max(1, min(int(pace * _BETWEEN), 2 * steps))  # the pace of the first steps is unreliable
        client().key_value_set(f"{self._name}/{step}", f"{int(stop)} {following}")
        self._said, self._time = [*self._said, step], time.monotonic()
        if len(self._said) > _KEPT:
            client().key_value_delete(f"{self._name}/{self._said.pop(0)}")
        return stop, following

    def _hear(self, step: int) -> tuple[bool, int]:
        while True:
            try:
                word = client().blocking_key_value_get(f"{self._name}/{step}", _PATIENCE_MS)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
            else:
                stop, following = map(int, word.split())
                return bool(stop), following


_COPIED = ("recipe.toml", "resolved.toml", "manifest.json", "metrics.jsonl")
_LINKED = ("checkpoints", "trained_on.npy", "trained_levels.npy")
_copies: dict[str, str] = {}


def own_folder(run: Path) -> Path:
    """Returns the folder in which this process works on a run: `run` itself, or a copy. All processes must call it."""
    if started_as() is None:
        return run
    folder = run if is_first() else _copy(run.resolve())
    meet()  # process 0 must not change files while the others copy them
    return folder


def in_words(text: str) -> str:
    """Returns a message in which paths of copies are replaced by the path of their run folder."""
    for copy, run in _copies.items():
        text = text.replace(copy, run)
    return text


def delete_copies() -> None:
    """Deletes this process's copies of run folders."""
    for copy in _copies:
        shutil.rmtree(copy, ignore_errors=True)


def _copy(run: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="vdmkit-"))
    atexit.register(delete_copies)
    _copies[str(folder)] = str(run)
    for name in _COPIED:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    if (run / "plugins").is_dir():
        shutil.copytree(run / "plugins", folder / "plugins")
    for name in _LINKED:
        if (run / name).exists():
            (folder / name).symlink_to(run / name)
    return folder
