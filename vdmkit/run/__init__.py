# SPDX-License-Identifier: Apache-2.0
"""Runs: recipes trained, evaluated and sampled, each in its own folder."""

from vdmkit.run._api import load, train
from vdmkit.run._audit import audit
from vdmkit.run._convert import convert as convert_run
from vdmkit.run._evaluate import evaluate_run, load_test, load_train
from vdmkit.run._fingerprint import fingerprint_of
from vdmkit.run._fit import check_fit, fit_schedule
from vdmkit.run._folder import RunFolder
from vdmkit.run._import import import_checkpoint
from vdmkit.run._likelihood import evaluate, measure_likelihood
from vdmkit.run._load import Run, load_run
from vdmkit.run._report import report_runs
from vdmkit.run._run import run_recipe
from vdmkit.run._score import score_run
from vdmkit.run._study import study_run
from vdmkit.run._study_files import leave as leave_study
from vdmkit.run._trained_on import read_trained_on

__all__ = [
    "Run",
    "RunFolder",
    "audit",
    "check_fit",
    "convert_run",
    "evaluate",
    "evaluate_run",
    "fingerprint_of",
    "fit_schedule",
    "import_checkpoint",
    "leave_study",
    "load",
    "load_run",
    "load_test",
    "load_train",
    "measure_likelihood",
    "read_trained_on",
    "report_runs",
    "run_recipe",
    "score_run",
    "study_run",
    "train",
]
