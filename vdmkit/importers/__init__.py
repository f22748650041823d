# SPDX-License-Identifier: Apache-2.0
"""Importers of checkpoints of other codebases, a module for each family."""

from vdmkit.importers._imported import Imported
from vdmkit.importers._vdm import read_vdm
from vdmkit.importers._vdm_config import official_recipe
from vdmkit.importers._vdm_names import official_parameters
from vdmkit.importers._vdm_state import OfficialCheckpoint, load_official
from vdmkit.importers.files import Content, TensorFacts, Weights, list_tensors, read_checkpoint, read_weights

__all__ = [
    "Content",
    "Imported",
    "OfficialCheckpoint",
    "TensorFacts",
    "Weights",
    "list_tensors",
    "load_official",
    "official_parameters",
    "official_recipe",
    "read_checkpoint",
    "read_vdm",
    "read_weights",
]
