# SPDX-License-Identifier: Apache-2.0
"""Runs: training, the run folder, and measurements of a trained model."""

from vdmkit.experiments.folder import RunFolder
from vdmkit.experiments.load import load_run

__all__ = ["RunFolder", "load_run"]
