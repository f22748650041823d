# SPDX-License-Identifier: Apache-2.0
"""Training: the state, its update, and optimisers.

The loop, checkpoints and signs of trouble are in the modules `loop`, `checkpoints` and `health`, whose libraries take a
while to load.
"""

from vdmkit.training.optimizers import adamw
from vdmkit.training.step import TrainState, Update, train_step

__all__ = ["TrainState", "Update", "adamw", "train_step"]
