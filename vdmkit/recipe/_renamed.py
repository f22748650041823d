# SPDX-License-Identifier: Apache-2.0
"""Renamed keys of recipes. The old names are refused with a message that gives the new one."""

RENAMED = {
    "objective.times": "objective.time_sampler",
    "objective.schedule": "objective.schedule_loss",
}
