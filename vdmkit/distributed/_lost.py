# SPDX-License-Identifier: Apache-2.0
"""Errors that the end of another process causes."""

from vdmkit.distributed._start import started_as
from vdmkit.errors import DistributedError

_SIGNS = ("gloo", "nccl", "coordination", "heartbeat", "barrier", "connection", "unavailable", "socket")


def lost(error: Exception) -> DistributedError | None:
    """Returns what to tell the user of an error that another process caused by its end; None for any other error."""
    text = str(error).strip().partition("\n")[0]
    if started_as() is None or not any(sign in str(error).lower() for sign in _SIGNS):
        return None
    return DistributedError(
        f"another process has ended, or cannot be reached ({text[:160]}). What was saved is kept: to go on, start all "
        "processes again with the same command."
    )
