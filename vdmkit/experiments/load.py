# SPDX-License-Identifier: Apache-2.0
"""Loads a trained model from its run folder, with its images and the records of its training images.

The records detect test images that are copies of training images or have different levels. `report_runs` makes an HTML
report of runs.
"""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from vdmkit.arguments import check_one_of
from vdmkit.conformance.recipe import check_data_of_recipe
from vdmkit.data.identity import TrainedOn, may_be_fingerprints, may_be_statistics
from vdmkit.data.sources import AbstractSource, Images, Split
from vdmkit.errors import CheckpointError, RecipeError, UntrustedError, VdmkitError
from vdmkit.experiments.folder import Provenance, RunFolder
from vdmkit.io import file_sha256, not_a_folder, whole_file
from vdmkit.model import DiffusionModel
from vdmkit.plugins import allow, plugin_sources
from vdmkit.progress import Progress
from vdmkit.recipes.build import state_like
from vdmkit.recipes.loading import load_recipe
from vdmkit.recipes.schema import Recipe, differences
from vdmkit.report.metrics import read_metrics
from vdmkit.report.page import Page, page
from vdmkit.report.run_contents import Preview, RunContents, preview_model, read_contents
from vdmkit.training.checkpoints import Restored, read_chosen, read_newest
from vdmkit.training.step import TrainState

Weights = Literal["ema", "raw"]
_AFTER_TRAINING = ("evaluation.", "likelihood.", "sampling.", "data.", "seed")


@dataclass(frozen=True, repr=False)
class Run:
    """A checkpoint of a run with its recipe, and the SHA-256 of all loaded plugin files."""

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
        """The key of the recipe's seed.

        With it and the recipe's estimator or sampler, functions reproduce the commands.
        """
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
        """Returns the page that `vdmkit report` writes; see `vdmkit.report.page.Page`."""

        return report_run(self, progress)

    def read_recipe(self, overrides: Sequence[str]) -> Recipe:
        """Returns the recipe of the run with overrides, read with the run's own plugin files."""
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
    """Reads a run folder with its newest checkpoint or that of `step`, its plugin files and additional `plugins`.

    Raises:
        UnknownCodeError: this user made no run with one of its plugin files on this machine, and `trust` is false.
        CheckpointError: the folder is not a run, or its checkpoint is missing, damaged, or from a different run.
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


def load_test(run: Run) -> Images:
    """Returns the test images of a run's recipe.

    Raises:
        DataError: the images are missing or damaged.
        UntrustedError: the images contradict their source or their identity, change on a second read, or are not those
            that the run recorded although no setting of the data was changed.
    """
    return _load(run, "test")


def load_train(run: Run) -> Images:
    """Returns the training images of a run's recipe. Raises the errors of `load_test`."""
    return _load(run, "train")


def _load(run: Run, split: Split) -> Images:
    source = run.source
    images = source.load(split)
    check_data_of_recipe(run.recipe, source, images).refuse()
    _refuse_unrecorded(run, images, split)
    return images


def _refuse_unrecorded(run: Run, images: Images, split: Split) -> None:
    """Raises UntrustedError if the images are not those of the run, because images could be chosen by their result."""
    data, found = run.folder.provenance().data, images.identity.sha256
    recorded = data and getattr(data, split)
    if recorded and recorded.sha256 != found and run.recipe.data == run.read_recipe(()).data:
        raise UntrustedError(
            f"{run.recipe.data.component}: its {split} images, sha256 {found[:12]}, are not those that "
            f"{run.folder.manifest} records, sha256 {recorded.sha256[:12]}, although no setting of the data was "
            "changed. Put the same images back, or name others with --set data...."
        )


def keep(folder: RunFolder, found: TrainedOn) -> dict[str, str]:
    """Writes the records of training images to the folder; returns the files' SHA-256 by name, for the manifest."""
    files = {folder.trained_on: found.fingerprints, folder.trained_levels: found.statistics}
    for path, array in files.items():
        if array is not None:
            with whole_file(path) as part, part.open("wb") as file:
                np.save(file, array)
    return {path.name: file_sha256(path) for path, array in files.items() if array is not None}


def read_trained_on(run: Run) -> TrainedOn:
    """Returns a run's records of training images, which are empty for imported models.

    Raises:
        CheckpointError: A file has changed since it was written, or belongs to different training images.
    """
    folder, made = run.folder, run.folder.provenance()
    if made.data is None:
        return TrainedOn()
    count, values = made.data.train.count, math.prod(made.shape)
    fingerprints = _read_trained_on(folder.kept(folder.trained_on), lambda a: may_be_fingerprints(a, count, values))
    statistics = _read_trained_on(folder.kept(folder.trained_levels), lambda a: may_be_statistics(a, count))
    return TrainedOn(asdict(made.data.train), fingerprints, statistics)


def _read_trained_on(path: Path | None, fits: Callable[[np.ndarray], bool]) -> np.ndarray | None:
    try:
        found = None if path is None else np.load(path)
    except Exception as error:  # a damaged header raises errors of many types
        raise CheckpointError(f"{path}: damaged ({error}). Run the recipe again to write it.") from error
    if found is None or (isinstance(found, np.ndarray) and fits(found)):
        return found
    raise CheckpointError(f"{path}: not of this run's training images. Run the recipe again to write it.")


def report_runs(paths: Sequence[str | os.PathLike[str]], *, trust: bool = False, progress: Progress = None) -> Page:
    """Returns the report of runs.

    Raises CheckpointError if a folder is not a run; a run that does not load is listed.
    """
    return page([_with_preview(one, trust, progress) for one in [read_contents(Path(path)) for path in paths]])


def report_run(run: Run, progress: Progress = None) -> Page:
    """Returns the report of a loaded run."""
    return page([replace(read_contents(run.folder.path), preview=_preview(run, progress))])


def _with_preview(contents: RunContents, trust: bool, progress: Progress) -> RunContents:
    try:
        return replace(contents, preview=_preview(load_run(contents.path, trust=trust), progress))
    except VdmkitError as error:
        return replace(contents, reason=str(error))


def _preview(run: Run, progress: Progress) -> Preview:
    model = run.weighted(run.recipe.evaluation.weights)
    loads: dict[Split, Callable[[Run], Images]] = {"train": load_train, "test": load_test}
    return preview_model(
        model, run.recipe, lambda split: loads[split](run), step=run.step, key=run.key, progress=progress
    )
