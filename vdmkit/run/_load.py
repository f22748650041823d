# SPDX-License-Identifier: Apache-2.0
"""Loads a trained model from its run folder."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from vdmkit.arguments import check_one_of
from vdmkit.assembly import state_like
from vdmkit.checkpoint import Restored, read_chosen, read_newest
from vdmkit.data import AbstractSource, Images, Split
from vdmkit.errors import CheckpointError, RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.page import Page
from vdmkit.paths import not_a_folder
from vdmkit.progress import Progress
from vdmkit.recipe import Recipe, differences, load_recipe
from vdmkit.registry import allow, plugin_sources
from vdmkit.report import read_metrics
from vdmkit.run._folder import RunFolder
from vdmkit.run._provenance import Provenance
from vdmkit.training import TrainState

Weights = Literal["ema", "raw"]
_AFTER_TRAINING = ("evaluation.", "likelihood.", "sampling.", "data.", "seed")


@dataclass(frozen=True, repr=False)
class Run:
    """A checkpoint of a run, with its recipe, and the SHA-256 of all loaded plugin files."""

    folder: RunFolder
    recipe: Recipe
    state: TrainState
    step: int
    plugins: tuple[str, ...]
    weights: Weights = "ema"

    @property
    def model(self) -> DiffusionModel:
        """The model with the chosen `weights`: averaged ("ema") or raw."""
        return self.weighted(self.weights)

    def weighted(self, weights: Weights) -> DiffusionModel:
        """Returns the model with averaged or with raw parameters."""
        return self.state.ema_model if weights == "ema" else self.state.model

    @property
    def key(self) -> PRNGKeyArray:
        """The key of the recipe's seed; with it and the recipe's estimator or sampler, functions equal the commands."""
        return jax.random.key(self.recipe.seed)

    @property
    def source(self) -> AbstractSource:
        """The data source of the recipe."""
        return self.recipe.data.build()

    def data(self, split: Split) -> Images:
        """Returns the training or the test images. Raises DataError if they are missing or damaged."""
        check_one_of("split", split, ("train", "test"))
        return self.source.load(split)

    def metrics(self) -> dict[str, tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
        """Returns the metrics that training logged: steps and values by name."""
        return read_metrics(self.folder.path)

    def report(self, *, progress: Progress = None) -> Page:
        """Returns the page that `vdmkit report` writes: see `vdmkit.page.Page`."""
        from vdmkit.run._report import report_run  # which loads runs itself

        return report_run(self, progress)

    def read_recipe(self, overrides: Sequence[str]) -> Recipe:
        """Returns the recipe of the run with overrides, read with its own plugin files."""
        return load_recipe(self.folder.resolved_recipe, overrides, kept=self.folder.kept_plugins())

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r}, step {self.step:,}, {self.weights} weights)"


def load_run(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    plugins: Sequence[Path] = (),
    step: int | None = None,
    weights: Weights = "ema",
    *,
    trust: bool = False,
) -> Run:
    """Reads a run folder, with its newest checkpoint or that of `step`, its plugin files and more `plugins`.

    Raises:
        UnknownCodeError: a plugin file that it kept is of no run that this user made here, and `trust` is false.
        CheckpointError: the folder is not a run, or its checkpoint is missing, damaged, or from another run.
        RecipeError: an override changes what was trained.
    """
    path = Path(path)
    folder = RunFolder(path)
    if reason := not_a_folder(path):
        raise CheckpointError(f"{path}: {reason}. Give the folder of a run.")
    if not folder.resolved_recipe.is_file():
        raise CheckpointError(f"{path}: not a run folder: it has no {folder.resolved_recipe.name}.")
    made = folder.provenance()
    folder.kept(folder.resolved_recipe)
    kept = folder.kept_plugins()
    allow([*plugins, *(kept if trust else ())])
    trained = load_recipe(folder.resolved_recipe, plugins=plugins, kept=kept)
    recipe = load_recipe(folder.resolved_recipe, overrides, kept=kept)
    _refuse_changes(trained, recipe)
    restored = _read(folder, trained, made, step)
    made.check(trained, folder.checkpoints, restored)
    sources = {source for file in (*kept, *plugins) for source in plugin_sources([file]).values()}
    hashes = sorted(hashlib.sha256(source).hexdigest() for source in sources)
    return Run(folder, recipe, restored.state, restored.step, tuple(hashes), weights)


def _refuse_changes(trained: Recipe, recipe: Recipe) -> None:
    wrong = [key for key in differences(trained, recipe) if not key.startswith(_AFTER_TRAINING)]
    if wrong:
        raise RecipeError(
            f"{', '.join(wrong)}: cannot be changed after training. Only seed, data, evaluation, likelihood "
            "and sampling can."
        )


def _read(folder: RunFolder, recipe: Recipe, made: Provenance, step: int | None) -> Restored:
    like = state_like(recipe, made.shape, made.levels)
    if step is not None:
        return read_chosen(folder.checkpoints, step, like)
    restored = read_newest(folder.checkpoints, like, saved=made.newest_checkpoint)
    if restored is None:
        raise CheckpointError(f"{folder.checkpoints}: no checkpoint yet. Run the recipe until it has saved one.")
    return restored
