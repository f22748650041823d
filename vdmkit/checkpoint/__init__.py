# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: a run's own, and those of the authors' released code."""

from vdmkit.checkpoint._official import OfficialCheckpoint, load_official
from vdmkit.checkpoint._official_config import official_recipe
from vdmkit.checkpoint._official_names import official_parameters
from vdmkit.checkpoint._read import Restored, read_chosen, read_newest, read_step, steps_in
from vdmkit.checkpoint._store import CheckpointStore

__all__ = [
    "CheckpointStore",
    "OfficialCheckpoint",
    "Restored",
    "load_official",
    "official_parameters",
    "official_recipe",
    "read_chosen",
    "read_newest",
    "read_step",
    "steps_in",
]
