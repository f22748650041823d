# SPDX-License-Identifier: Apache-2.0
"""A trained model from its run folder."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from vdmkit.assembly import state_like
from vdmkit.checkpoint import Restored, read_chosen, read_newest, steps_in
from vdmkit.data import AbstractSource, Images, Split
from vdmkit.errors import CheckpointError, RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.paths import not_a_folder
from vdmkit.recipe import Recipe, differences, load_recipe
from vdmkit.registry import plugin_sources
from vdmkit.run._folder import RunFolder
from vdmkit.run._metrics import read_metrics
from vdmkit.run._origin import name_of_images, origin_of
from vdmkit.training import TrainState

Weights = Literal["ema", "raw"]
_AFTER_TRAINING = ("evaluation.", "likelihood.", "sampling.", "data.", "seed")


@dataclass(frozen=True, repr=False)
class Run:
    """A checkpoint of a run, the recipe that made it, and SHA-256 of all plugin files that are loaded."""

    folder: RunFolder
    recipe: Recipe
    state: TrainState
    step: int
    plugins: tuple[str, ...]
    weights: Weights = "ema"

    @property
    def model(self) -> DiffusionModel:
        """The model with the `weights` that were asked for: averaged ("ema") or raw."""
        return self.weighted(self.weights)

    def weighted(self, weights: Weights) -> DiffusionModel:
        """The model with averaged or with raw parameters."""
        return self.state.ema_model if weights == "ema" else self.state.model

    @property
    def key(self) -> PRNGKeyArray:
        """The key of the recipe's seed: with it `vdmkit.log_likelihood` and `vdmkit.sample` do what commands do."""
        return jax.random.key(self.recipe.seed)

    @property
    def source(self) -> AbstractSource:
        """Where the images of the recipe come from."""
        return self.recipe.data.build()

    def data(self, split: Split) -> Images:
        """The training or the test images of the recipe. Raises DataError if they are missing or damaged."""
        return self.source.load(split)

    def metrics(self) -> dict[str, tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
        """By name, the steps and the values that training logged."""
        return read_metrics(self.folder.path)

    @property
    def tested_on(self) -> dict[str, Any] | None:
        """The identity of the test images, as in the manifest; None if it is not known."""
        data = self.folder.facts()["data"]
        return data and data["test"]

    def read_recipe(self, overrides: Sequence[str]) -> Recipe:
        """Returns the recipe of the run with overrides, by its own plugin files."""
        return load_recipe(self.folder.resolved_recipe, overrides, kept=self.folder.kept_plugins())

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r}, step {self.step:,}, {self.weights} weights)"


def load_run(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    plugins: Sequence[Path] = (),
    step: int | None = None,
    weights: Weights = "ema",
) -> Run:
    """Read a run folder, its newest checkpoint or that of `step`. Its plugin files are loaded; `plugins` are more.

    Raises:
        CheckpointError: not a run folder; no checkpoint, a damaged or missing one, or one of another run.
        RecipeError: an override changes what was trained.
    """
    path = Path(path)
    folder = RunFolder(path)
    if reason := not_a_folder(path):
        raise CheckpointError(f"{path}: {reason}. Give the folder of a run.")
    if not folder.resolved_recipe.is_file():
        raise CheckpointError(f"{path}: not a run folder: it has no {folder.resolved_recipe.name}.")
    facts = folder.facts()
    kept = folder.kept_plugins()
    trained = load_recipe(folder.resolved_recipe, plugins=plugins, kept=kept)
    recipe = load_recipe(folder.resolved_recipe, overrides, kept=kept)
    _refuse_changes(trained, recipe)
    restored = _read(folder, trained, facts, step)
    images = facts["data"] and name_of_images(facts["data"]["train"]["sha256"], facts["shape"], facts["levels"])
    origin = origin_of(trained, facts["plugins"].values(), images, facts["imported"])
    origin.check(folder.checkpoints, restored)
    sources = {source for file in (*kept, *plugins) for source in plugin_sources([file]).values()}
    hashes = sorted(hashlib.sha256(source).hexdigest() for source in sources)
    return Run(folder, recipe, restored.state, restored.step, tuple(hashes), weights)


def _refuse_changes(trained: Recipe, recipe: Recipe) -> None:
    wrong = [key for key in differences(trained, recipe) if not key.startswith(_AFTER_TRAINING)]
    if wrong:
        raise RecipeError(
            f"--set {', '.join(wrong)}: cannot be changed after training. Only seed, data, evaluation, likelihood "
            "and sampling can."
        )


def _read(folder: RunFolder, recipe: Recipe, facts: dict[str, Any], step: int | None) -> Restored:
    like = state_like(recipe, tuple(facts["shape"]), facts["levels"])
    if step is not None:
        return read_chosen(folder.checkpoints, step, like)
    there = max(steps_in(folder.checkpoints), default=None)
    restored = read_newest(folder.checkpoints, like, saved=facts.get("newest_checkpoint", there))  # older: not noted
    if restored is None:
        raise CheckpointError(f"{folder.checkpoints}: no checkpoint yet. Run the recipe until it has saved one.")
    return restored
