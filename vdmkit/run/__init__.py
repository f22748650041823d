# SPDX-License-Identifier: Apache-2.0
"""Runs: a recipe trained, evaluated and sampled in a folder of its own."""

from vdmkit.run._evaluate import Evaluation, evaluate
from vdmkit.run._folder import RunFolder, write_json, write_text
from vdmkit.run._import import import_official
from vdmkit.run._load import TrainedRun, load_run
from vdmkit.run._manifest import manifest
from vdmkit.run._run import run_recipe
from vdmkit.run._sample import Plan, draw_samples, fit_into

__all__ = [
    "Evaluation",
    "Plan",
    "RunFolder",
    "TrainedRun",
    "draw_samples",
    "evaluate",
    "fit_into",
    "import_official",
    "load_run",
    "manifest",
    "run_recipe",
    "write_json",
    "write_text",
]
