# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk."""

from vdmkit.checkpoint._read import Restored, read_chosen, read_newest, read_step, steps_in
from vdmkit.checkpoint._store import CheckpointStore

__all__ = [
    "CheckpointStore",
    "Restored",
    "read_chosen",
    "read_newest",
    "read_step",
    "steps_in",
]
