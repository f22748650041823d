# SPDX-License-Identifier: Apache-2.0
"""The main job: train, evaluate, sample, and leave a run folder that everything later starts from."""

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from vdmkit.data import Images
from vdmkit.errors import DataError
from vdmkit.recipe import Recipe
from vdmkit.report import write_png
from vdmkit.run._evaluate import Evaluation, evaluate
from vdmkit.run._folder import RunFolder, write_json
from vdmkit.run._manifest import manifest
from vdmkit.run._pictures import picture_beside_real
from vdmkit.run._train import Training, begin
from vdmkit.training import TrainState


def run_recipe(recipe: Recipe, text: str, folder: RunFolder, plugins: Sequence[Path]) -> Evaluation:
    """Train `recipe`, whose file reads `text`, in `folder`; a run that was cut short goes on where it was.

    Raises:
        VdmkitError: the data, the folder, the training or the evaluation is not as it should be.
    """
    with folder.locked():
        folder.claim(recipe, text)
        source = recipe.data.build()
        train, test = source.load("train"), source.load("test")
        _note(folder, train, test, plugins)
        training, state = begin(recipe, folder, train, test)
        with closing(training.log):
            return _report(training, training.run(state))


def _report(training: Training, state: TrainState) -> Evaluation:
    """Evaluate and sample the trained model, and leave both in the run folder."""
    recipe, folder, test, step = training.recipe, training.folder, training.test, int(state.step)
    settings = recipe.evaluation
    model = state.ema_model if settings.weights == "ema" else state.model
    evaluation = evaluate(model, test, settings, step=step, seed=recipe.seed, seconds=60 * settings.minutes)
    write_json(folder.evaluation, evaluation.as_json())
    picture = picture_beside_real(model, test, recipe)
    write_png(picture, folder.samples)
    training.log.picture(step, "samples", picture)
    return evaluation


def _note(folder: RunFolder, train: Images, test: Images, plugins: Sequence[Path]) -> None:
    """Write the manifest, and say what the run is on. Raises DataError if it began on other images."""
    facts = manifest(train, test, plugins)
    if folder.manifest.exists():
        before = folder.facts()["data"]  # None for an imported checkpoint
        if before and before["train"]["sha256"] != train.identity.sha256:
            raise DataError(
                f"{folder.path}: this run began on training images of sha256 {before['train']['sha256'][:12]}, "
                f"these have {train.identity.sha256[:12]}. Give it the same images, or another folder with --out."
            )
    write_json(folder.manifest, facts)
    print(f"train  {train.identity}\ntest   {test.identity}", file=sys.stderr)
