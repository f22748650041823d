# SPDX-License-Identifier: Apache-2.0
"""Starts JAX's distributed runtime, if it is asked for: what looks like a cluster may be an allocation of one shell."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from vdmkit.errors import DistributedError, RecipeError

_CONNECT = 300  # seconds; nodes of a cluster start at different times
_SILENT = 40  # seconds without a sign of life of a process, after which JAX ends the others
_AT_EXIT = 30  # seconds that a process waits at its end for the others
_VARIABLES = {
    "coordinator": ("--coordinator", "JAX_COORDINATOR_ADDRESS"),
    "processes": ("--processes", "JAX_NUM_PROCESSES"),
    "process": ("--process", "JAX_PROCESS_ID"),
}
_place: "Place | None" = None


@dataclass(frozen=True)
class Place:
    """The number of this process, from 0, and how many there are; its devices, and those of all."""

    process: int
    processes: int
    local_devices: int
    devices: int
    kind: str

    def __str__(self) -> str:
        share = f"{self.local_devices} of {self.devices} devices, {self.kind}"
        return f"process {self.process} of {self.processes}, {share}"


def started_as() -> Place | None:
    """Returns the place of this process among those that `start` connected; None if it is alone."""
    return _place


def start(
    mode: str, coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Place | None:
    """Connects this process to the others, before JAX is used; with mode "off" it does nothing.

    Args:
        mode: "auto" is JAX's own detection, "explicit" takes the other arguments, or JAX's environment variables.
        coordinator: Host and port of process 0.
        processes: How many there must be, in any mode.
        process: Number of this process.

    Raises:
        RecipeError: the arguments do not fit the mode.
        DistributedError: the processes do not find each other, or are of another number or with unequal devices.
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
        # Kubernetes has no name in JAX: in a pod it is what JAX detects.
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
    except Exception as error:  # of many types, by the cluster
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
