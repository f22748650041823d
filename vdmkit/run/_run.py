# SPDX-License-Identifier: Apache-2.0
"""The main job: train, evaluate, sample, and leave a run folder that everything later starts from."""

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from vdmkit.data import Images
from vdmkit.files import file_sha256, write_json
from vdmkit.recipe import Recipe
from vdmkit.report import MetricLog, write_png
from vdmkit.run._evaluate import evaluate
from vdmkit.run._evaluation import Evaluation
from vdmkit.run._folder import RunFolder
from vdmkit.run._manifest import manifest, session
from vdmkit.run._origin import origin
from vdmkit.run._pictures import picture_beside_real
from vdmkit.run._train import Training, begin
from vdmkit.run._trained_on import image_hashes, read_hashes, write_hashes
from vdmkit.training import TrainState


def run_recipe(recipe: Recipe, text: str, folder: RunFolder, plugins: Sequence[Path]) -> Evaluation:
    """Train `recipe`, whose file reads `text`, in `folder`; a run that was cut short goes on where it was.

    Raises:
        VdmkitError: the data, the folder, the training or the evaluation is not as it should be.
    """
    folder.check(recipe)
    with folder.locked():
        earlier = folder.facts()["sessions"] if folder.manifest.exists() else []
        source = recipe.data.build()
        train, test = source.load("train"), source.load("test")
        start = begin(recipe, folder, train, origin(recipe, train.identity.sha256, map(file_sha256, plugins)))
        # Not before: a command that is refused leaves the folder as it was.
        folder.write_recipe(recipe, text)
        now = session(int(start.state.step), recipe.training.steps)
        _note(folder, train, test, plugins, [*earlier, now])
        if "imported" not in start.origin:
            write_hashes(folder.trained_on, image_hashes(train.pixels))
        with closing(MetricLog(folder.path, step=int(start.state.step))) as log:
            training = Training(recipe, folder, test, start, log)
            return _report(training, training.run())


def _note(
    folder: RunFolder, train: Images, test: Images, plugins: Sequence[Path], sessions: Sequence[dict[str, Any]]
) -> None:
    """Leave in the folder, and say, what the run is on."""
    write_json(folder.manifest, manifest(train, test, folder.copy_plugins(plugins), sessions))
    print(f"train  {train.identity}\ntest   {test.identity}", file=sys.stderr)


def _report(training: Training, state: TrainState) -> Evaluation:
    """Evaluate and sample the trained model, and leave both in the run folder."""
    recipe, folder, test, step = training.recipe, training.folder, training.test, int(state.step)
    model = state.ema_model if recipe.evaluation.weights == "ema" else state.model
    limit, trained_on = 60 * recipe.evaluation.minutes, read_hashes(folder.trained_on)
    evaluation = evaluate(model, test, recipe, step=step, trained_on=trained_on, seconds=limit)
    write_json(folder.evaluation, evaluation.as_json())
    picture = picture_beside_real(model, test, recipe)
    write_png(picture, folder.samples)
    training.log.picture(step, "samples", picture)
    return evaluation
