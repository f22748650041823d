# SPDX-License-Identifier: Apache-2.0
"""Scalars logged beside the loss: the learning rate and the ends of the schedule."""

import numpy as np

from vdmkit.assembly import build_learning_rate
from vdmkit.noise import ends_of
from vdmkit.recipe import Recipe
from vdmkit.training import TrainState


def scalars_of(recipe: Recipe, state: TrainState) -> dict[str, float]:
    """Returns gamma_0 and gamma_1 of the schedule, and the learning rate of the last update if it is known."""
    gamma_0, gamma_1 = ends_of(state.model.schedule)
    ends = {"schedule/gamma_0": gamma_0, "schedule/gamma_1": gamma_1}
    rate = build_learning_rate(recipe)
    return ends if rate is None else {"learning_rate": float(np.asarray(rate(int(state.step) - 1))), **ends}
