# SPDX-License-Identifier: Apache-2.0
"""Keys that recipes once had. They are refused: a recipe says one thing in one way, and the message says which."""

RENAMED = {
    "objective.times": "objective.time_sampler",
    "objective.schedule": "objective.schedule_loss",
}
