# SPDX-License-Identifier: Apache-2.0
"""Runs: training, the run folder, and measurements of a trained model."""

from vdmkit.experiments.folder import RunFolder
from vdmkit.experiments.load import Run, load_run
from vdmkit.experiments.run import load, train

__all__ = ["Run", "RunFolder", "load", "load_run", "train"]
