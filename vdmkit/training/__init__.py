# SPDX-License-Identifier: Apache-2.0
"""The training step: state, update, and where arrays live."""

from vdmkit.training._placement import data_mesh, place_batch, replicate
from vdmkit.training._state import TrainState, initial_state
from vdmkit.training._step import Batch, Metrics, Update, train_step, train_steps

__all__ = [
    "Batch",
    "Metrics",
    "TrainState",
    "Update",
    "data_mesh",
    "initial_state",
    "place_batch",
    "replicate",
    "train_step",
    "train_steps",
]
