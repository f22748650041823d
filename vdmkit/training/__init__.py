# SPDX-License-Identifier: Apache-2.0
"""Training: the state, its update, and optimisers.

The loop, checkpoints and signs of trouble are in the modules `loop`, `checkpoints` and `health`, whose libraries take a
while to load.
"""

from vdmkit.training.optimizers import adamw
from vdmkit.training.step import Batch, Metrics, TrainState, Update, initial_state, train_step, train_steps

__all__ = ["Batch", "Metrics", "TrainState", "Update", "adamw", "initial_state", "train_step", "train_steps"]
