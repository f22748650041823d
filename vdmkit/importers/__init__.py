# SPDX-License-Identifier: Apache-2.0
"""Importers of checkpoints of other codebases, a module for each family."""

from vdmkit.importers._described import Described, described
from vdmkit.importers._diffusers import DiffusersImporter
from vdmkit.importers._diffusers_names import diffusers_network, with_diffusers_arrays
from vdmkit.importers._edm import EdmImporter
from vdmkit.importers._edm_names import edm_network, with_edm_arrays
from vdmkit.importers._idode import IDodeImporter
from vdmkit.importers._imported import Imported
from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers._openai import OpenAiImporter
from vdmkit.importers._openai_names import openai_network, with_openai_arrays
from vdmkit.importers._read import read_imported
from vdmkit.importers._score_sde import ScoreSdeImporter
from vdmkit.importers._score_sde_names import score_sde_network, with_score_sde_arrays
from vdmkit.importers._settings import Settings
from vdmkit.importers._state import state_of
from vdmkit.importers._vdm import VdmImporter, with_vdm_arrays
from vdmkit.importers._vdm_config import official_recipe
from vdmkit.importers._vdm_names import official_parameters
from vdmkit.importers._vdm_state import OfficialCheckpoint, load_official
from vdmkit.importers.files._adam import Adam, Arrays
from vdmkit.importers.files._list import TensorFacts, list_tensors
from vdmkit.importers.files._read import Content, read_checkpoint
from vdmkit.importers.files._weights import Weights, read_weights

__all__ = [
    "AbstractImporter",
    "Adam",
    "Arrays",
    "Config",
    "Content",
    "Described",
    "DiffusersImporter",
    "EdmImporter",
    "IDodeImporter",
    "Imported",
    "OfficialCheckpoint",
    "OpenAiImporter",
    "ScoreSdeImporter",
    "Settings",
    "TensorFacts",
    "VdmImporter",
    "Weights",
    "described",
    "diffusers_network",
    "edm_network",
    "list_tensors",
    "load_official",
    "official_parameters",
    "official_recipe",
    "openai_network",
    "read_checkpoint",
    "read_imported",
    "read_weights",
    "score_sde_network",
    "state_of",
    "with_diffusers_arrays",
    "with_edm_arrays",
    "with_openai_arrays",
    "with_score_sde_arrays",
    "with_vdm_arrays",
]
