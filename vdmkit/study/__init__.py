# SPDX-License-Identifier: Apache-2.0
"""Measures a trained model's errors along gamma, and derives schedules and step grids from them."""

from vdmkit.study._curve import Curve, errors_at, loss_at_ends
from vdmkit.study._fit import Fit, choice_of_fit, fitted, judge_fit
from vdmkit.study._grids import cheapest_paths, closed_form, cost_of, costs_of_gaussian
from vdmkit.study._measured import Measurement
from vdmkit.study._pairs import steps_from
from vdmkit.study._predicted import Predicted
from vdmkit.study._study import Study, Variance, plan_study, study_schedules
from vdmkit.study._text import lines_of_steps, lines_of_variances, text_of_study
from vdmkit.study._variance import best_rate, fine, rate_of, variance, variances_with_errors

__all__ = [
    "Curve",
    "Fit",
    "Measurement",
    "Predicted",
    "Study",
    "Variance",
    "best_rate",
    "cheapest_paths",
    "choice_of_fit",
    "closed_form",
    "cost_of",
    "costs_of_gaussian",
    "errors_at",
    "fine",
    "fitted",
    "judge_fit",
    "lines_of_steps",
    "lines_of_variances",
    "loss_at_ends",
    "plan_study",
    "rate_of",
    "steps_from",
    "study_schedules",
    "text_of_study",
    "variance",
    "variances_with_errors",
]
