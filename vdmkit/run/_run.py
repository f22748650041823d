# SPDX-License-Identifier: Apache-2.0
"""The main job: train, evaluate, sample, and leave a run folder that everything later starts from."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from vdmkit.data import Images
from vdmkit.files import write_json
from vdmkit.likelihood import check_count
from vdmkit.plugins import plugin_sources
from vdmkit.recipe import Recipe
from vdmkit.report import MetricLog, write_png
from vdmkit.run._evaluate import evaluate
from vdmkit.run._evaluation import Evaluation
from vdmkit.run._folder import RunFolder
from vdmkit.run._manifest import manifest, session
from vdmkit.run._origin import Origin, name_of_images, origin_of
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
    sources = plugin_sources(plugins)
    with folder.locked():
        earlier = folder.facts() if folder.manifest.exists() else {"sessions": [], "imported": None}
        source = recipe.data.build()
        train, test = source.load("train"), source.load("test")
        check_count(test.pixels)
        start = begin(recipe, folder, train, _origin(recipe, sources, train, earlier["imported"]))
        # Not before: a command that is refused leaves the folder as it was, and says no more than why.
        folder.say_new_end(recipe)
        folder.write_recipe(recipe, text)
        folder.keep_plugins(sources)
        now = session(int(start.state.step), recipe.training.steps)
        facts = manifest(train, test, _hashes(sources), [*earlier["sessions"], now], start.origin.imported)
        write_json(folder.manifest, facts)
        if not start.origin.imported:  # what that was trained on before is not known
            write_hashes(folder.trained_on, image_hashes(train.pixels))
        print(f"train  {train.identity}\ntest   {test.identity}", file=sys.stderr)
        with closing(MetricLog(folder.path, step=int(start.state.step))) as log:
            training = Training(recipe, folder, test, start, log)
            return _report(training, training.run())


def _origin(recipe: Recipe, sources: Mapping[str, bytes], train: Images, imported: str | None) -> Origin:
    images = name_of_images(train.identity.sha256, train.pixels.shape[1:], train.levels)
    return origin_of(recipe, _hashes(sources).values(), images, imported)


def _hashes(sources: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}


def _report(training: Training, state: TrainState) -> Evaluation:
    """Evaluate and sample the trained model, and leave both in the run folder."""
    recipe, folder, test, step = training.recipe, training.folder, training.test, int(state.step)
    model = state.ema_model if recipe.evaluation.weights == "ema" else state.model
    limit, trained_on = 60 * recipe.evaluation.minutes, read_hashes(folder.trained_on)
    evaluation = evaluate(model, test, recipe, step=step, trained_on=trained_on, seconds=limit)
    write_json(folder.evaluation, evaluation.as_json())
    training.log.scalars(step, {f"test/{name}": getattr(evaluation, name) for name in ("bpd", "bpd_low", "bpd_high")})
    picture = picture_beside_real(model, test, recipe)
    if picture is None:
        folder.samples.unlink(missing_ok=True)  # of an earlier end of this run
    else:
        write_png(picture, folder.samples)
        training.log.picture(step, "samples", picture)
    return evaluation
