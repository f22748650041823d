# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files of other codebases, read without their libraries and without executing anything."""

from vdmkit.importers.files._adam import Adam, Arrays, find_adam
from vdmkit.importers.files._diffusers import weight_files
from vdmkit.importers.files._limits import shown
from vdmkit.importers.files._list import TensorFacts, flat_arrays, list_tensors
from vdmkit.importers.files._plain import PersistentObject
from vdmkit.importers.files._read import Content, read_checkpoint
from vdmkit.importers.files._weights import Weights, family_of, read_weights, step_in

__all__ = [
    "Adam",
    "Arrays",
    "Content",
    "PersistentObject",
    "TensorFacts",
    "Weights",
    "family_of",
    "find_adam",
    "flat_arrays",
    "list_tensors",
    "read_checkpoint",
    "read_weights",
    "shown",
    "step_in",
    "weight_files",
]
