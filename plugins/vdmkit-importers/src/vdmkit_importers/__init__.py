# SPDX-License-Identifier: Apache-2.0
"""Importers of checkpoints of EDM, iDDPM, ADM, Score-SDE and i-DODE: a module for each family."""

from vdmkit_importers.edm import EdmImporter
from vdmkit_importers.idode import IDodeImporter
from vdmkit_importers.openai import OpenAiImporter
from vdmkit_importers.score_sde import ScoreSdeImporter

__all__ = ["EdmImporter", "IDodeImporter", "OpenAiImporter", "ScoreSdeImporter"]
