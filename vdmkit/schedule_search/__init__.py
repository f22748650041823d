# SPDX-License-Identifier: Apache-2.0
"""Studies of schedules and step grids, from the errors of a trained model along gamma."""

from vdmkit.schedule_search.steps import cheapest_paths, costs_of_gaussian
from vdmkit.schedule_search.study import Study, lines_of_variances, plan_study, study_schedules, text_of_study

__all__ = [
    "Study",
    "cheapest_paths",
    "costs_of_gaussian",
    "lines_of_variances",
    "plan_study",
    "study_schedules",
    "text_of_study",
]
