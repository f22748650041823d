# SPDX-License-Identifier: Apache-2.0
"""Training: state, update, and the loop of updates."""

from vdmkit.training._compiled_step import KeptStep, load_ahead
from vdmkit.training._gradient import Batch, Metrics
from vdmkit.training._loop import Loop, default_steps_per_dispatch, means, next_multiple
from vdmkit.training._session import session
from vdmkit.training._state import TrainState, initial_state, is_finite
from vdmkit.training._step import Update, train_step, train_steps
from vdmkit.training._stop import stop_requests
from vdmkit.training._unlogged import Unlogged, unlogged_in

__all__ = [
    "Batch",
    "KeptStep",
    "Loop",
    "Metrics",
    "TrainState",
    "Unlogged",
    "Update",
    "default_steps_per_dispatch",
    "initial_state",
    "is_finite",
    "load_ahead",
    "means",
    "next_multiple",
    "session",
    "stop_requests",
    "train_step",
    "train_steps",
    "unlogged_in",
]
