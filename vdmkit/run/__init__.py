# SPDX-License-Identifier: Apache-2.0
"""Runs: a recipe trained, evaluated and sampled in a folder of its own."""

from vdmkit.data import image_hashes
from vdmkit.run._arithmetic import Arithmetic, arithmetic
from vdmkit.run._audit import audit, audit_as_json
from vdmkit.run._codec import Coding, coding_of, fingerprint, with_steps_of_codec
from vdmkit.run._comparable import check_comparable
from vdmkit.run._compress import Compressed, compress
from vdmkit.run._conformance import check_model_of_run, load_test
from vdmkit.run._convert import convert as convert_run
from vdmkit.run._decompress import Preview, codec_of_file, images_of_file, step_of_file, write_images
from vdmkit.run._evaluate import check_fits, evaluate
from vdmkit.run._evaluation import Evaluation
from vdmkit.run._expected_rate import ExpectedRate, expected_rate
from vdmkit.run._fit import check_fit, fit_schedule
from vdmkit.run._folder import RunFolder
from vdmkit.run._import import import_official
from vdmkit.run._likelihood import measure_likelihood
from vdmkit.run._likelihood_report import Likelihood
from vdmkit.run._load import TrainedRun, load_run
from vdmkit.run._manifest import manifest, session
from vdmkit.run._run import run_recipe
from vdmkit.run._sample import Drawn, Plan, Procedure, draw_samples, drawn_by, fit_into, procedure_of
from vdmkit.run._schedule import study_schedules
from vdmkit.run._schedule_report import leave as leave_study
from vdmkit.run._schedule_report import text_of as text_of_study
from vdmkit.run._score import score as score_run
from vdmkit.run._trained_on import TrainedOn, read_trained_on, trained_on

__all__ = [
    "Arithmetic",
    "Coding",
    "Compressed",
    "Drawn",
    "Evaluation",
    "ExpectedRate",
    "Likelihood",
    "Plan",
    "Preview",
    "Procedure",
    "RunFolder",
    "TrainedOn",
    "TrainedRun",
    "arithmetic",
    "audit",
    "audit_as_json",
    "check_comparable",
    "check_fit",
    "check_fits",
    "check_model_of_run",
    "codec_of_file",
    "coding_of",
    "compress",
    "convert_run",
    "draw_samples",
    "drawn_by",
    "evaluate",
    "expected_rate",
    "fingerprint",
    "fit_into",
    "fit_schedule",
    "image_hashes",
    "images_of_file",
    "import_official",
    "leave_study",
    "load_run",
    "load_test",
    "manifest",
    "measure_likelihood",
    "procedure_of",
    "read_trained_on",
    "run_recipe",
    "score_run",
    "session",
    "step_of_file",
    "study_schedules",
    "text_of_study",
    "trained_on",
    "with_steps_of_codec",
    "write_images",
]
