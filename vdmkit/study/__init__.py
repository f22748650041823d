# SPDX-License-Identifier: Apache-2.0
"""Measures a trained model's errors along gamma, and derives schedules and step grids from them."""

from vdmkit.study._grids import cheapest_paths, costs_of_gaussian
from vdmkit.study._study import Study, plan_study, study_schedules
from vdmkit.study._text import lines_of_variances, text_of_study

__all__ = [
    "Study",
    "cheapest_paths",
    "costs_of_gaussian",
    "lines_of_variances",
    "plan_study",
    "study_schedules",
    "text_of_study",
]
