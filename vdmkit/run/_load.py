# SPDX-License-Identifier: Apache-2.0
"""A trained model from its run folder."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vdmkit.assembly import state_like
from vdmkit.checkpoint import read_newest
from vdmkit.errors import CheckpointError
from vdmkit.model import DiffusionModel
from vdmkit.recipe import Recipe, load_recipe
from vdmkit.run._folder import RunFolder
from vdmkit.training import TrainState


@dataclass(frozen=True)
class TrainedRun:
    """The newest checkpoint of a run, and the recipe that made it."""

    folder: RunFolder
    recipe: Recipe
    state: TrainState
    step: int

    def model(self, weights: Literal["ema", "raw"]) -> DiffusionModel:
        """The model with averaged or with raw parameters."""
        return self.state.ema_model if weights == "ema" else self.state.model


def load_run(path: Path, overrides: Sequence[str] = (), plugins: Sequence[Path] = ()) -> TrainedRun:
    """Read a run folder. Components from the plugin files that it was trained with are loaded again.

    Raises:
        CheckpointError: not a run folder, no usable checkpoint, or one that does not fit the recipe.
    """
    folder = RunFolder(path)
    if not folder.resolved_recipe.is_file():
        raise CheckpointError(f"{path}: not a run folder: it has no {folder.resolved_recipe.name}.")
    facts = folder.facts()
    files = list(plugins) or [Path(name) for name in facts["plugins"]]
    recipe = load_recipe(folder.resolved_recipe, overrides, files)
    like = state_like(recipe, tuple(facts["shape"]), facts["levels"])
    restored = read_newest(folder.checkpoints, like, warn=lambda message: print(message, file=sys.stderr))
    if restored is None:
        raise CheckpointError(f"{folder.checkpoints}: no usable checkpoint. Run the recipe until it has saved one.")
    return TrainedRun(folder, recipe, restored.state, restored.step)
