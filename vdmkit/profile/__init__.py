# SPDX-License-Identifier: Apache-2.0
"""A trained model's errors along gamma, and the schedules and step grids that follow from them."""

from vdmkit.profile._curve import Curve, errors_at, loss_at_ends
from vdmkit.profile._grids import cheapest_paths, closed_form, cost_of, costs_of_gaussian
from vdmkit.profile._pairs import steps_from
from vdmkit.profile._variance import best_rate, fine, rate_of, variance, variances_with_errors

__all__ = [
    "Curve",
    "best_rate",
    "cheapest_paths",
    "closed_form",
    "cost_of",
    "costs_of_gaussian",
    "errors_at",
    "fine",
    "loss_at_ends",
    "rate_of",
    "steps_from",
    "variance",
    "variances_with_errors",
]
