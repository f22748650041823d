# SPDX-License-Identifier: Apache-2.0
"""The main job: train, evaluate, sample, and leave a run folder that everything later starts from."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from vdmkit.checkpoint import steps_in
from vdmkit.data import Images, groups_of, prints_of
from vdmkit.errors import Interrupted
from vdmkit.files import write_json
from vdmkit.likelihood import check_count, check_distinct
from vdmkit.plugins import plugin_sources
from vdmkit.recipe import Recipe
from vdmkit.report import MetricLog, write_png
from vdmkit.run._comparable import check_comparable
from vdmkit.run._conformance import check_data_of_run, check_model_of_run, check_training_of_run
from vdmkit.run._evaluate import evaluate
from vdmkit.run._evaluation import Evaluation
from vdmkit.run._folder import RunFolder
from vdmkit.run._manifest import manifest, session
from vdmkit.run._origin import Origin, name_of_images, origin_of
from vdmkit.run._pictures import picture_beside_real
from vdmkit.run._train import Training, begin
from vdmkit.run._trained_on import TrainedOn, keep, trained_on
from vdmkit.training import TrainState


def run_recipe(recipe: Recipe, text: str, folder: RunFolder, plugins: Sequence[Path]) -> Evaluation:
    """Train `recipe`, whose file reads `text`, in `folder`; a run that was cut short goes on where it was.

    Raises:
        Interrupted: the user asked to stop; what was trained is saved.
        UntrustedError: a component does not do what its kind must.
        VdmkitError: the data, the folder, the training or the evaluation is not as it should be.
    """
    folder.check(recipe, plugins)
    sources = plugin_sources(plugins)
    with folder.locked():
        earlier = folder.facts() if folder.manifest.exists() else {"sessions": [], "imported": None}
        source = recipe.data.build()
        train, test = source.load("train"), source.load("test")
        check_count(test.pixels)
        findings = check_data_of_run(recipe, source, train, test) + check_training_of_run(recipe, train)
        findings.refuse()
        known = trained_on(train)
        check_distinct(groups_of(prints_of(test), known.prints))
        remarks = check_comparable(asdict(train.identity), test, known.statistics)
        missing = folder.missing_checkpoint()
        start = begin(recipe, folder, train, _origin(recipe, sources, train, earlier["imported"]))
        check_model_of_run(recipe, start.state.ema_model, train.pixels).refuse()
        # Not before: a command that is refused leaves the folder as it was, and says no more than why.
        folder.say_new_end(recipe, plugins)
        if missing is not None:
            print(
                f"{folder.checkpoints / str(missing)}: this checkpoint, the last that was saved, is missing. "
                f"Training goes on from step {int(start.state.step):,}.",
                file=sys.stderr,
            )
        folder.write_recipe(recipe, text)
        folder.keep_plugins(sources)
        now = session(int(start.state.step), recipe.training.steps)
        known = TrainedOn() if start.origin.imported else known  # what that was trained on before is not known
        newest = max(steps_in(folder.checkpoints), default=None)  # of whole ones: the others are set aside
        sessions, kept = [*earlier["sessions"], now], keep(folder, known)
        facts = manifest(train, test, _hashes(sources), sessions, start.origin.imported, kept, newest)
        write_json(folder.manifest, facts)
        print(f"train  {train.identity}\ntest   {test.identity}", file=sys.stderr)
        with closing(MetricLog(folder.path, step=int(start.state.step))) as log:
            training = Training(recipe, folder, test, start, log)
            return _close(training, training.run(), known, remarks)


def _origin(recipe: Recipe, sources: Mapping[str, bytes], train: Images, imported: str | None) -> Origin:
    images = name_of_images(train.identity.sha256, train.pixels.shape[1:], train.levels)
    return origin_of(recipe, _hashes(sources).values(), images, imported)


def _hashes(sources: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}


def _close(training: Training, state: TrainState, known: TrainedOn, remarks: Sequence[str]) -> Evaluation:
    try:
        return _report(training, state, known, remarks)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped after training: its last step, {int(state.step):,}, is saved in {training.folder.checkpoints}. "
            "To evaluate and sample, run the same command again."
        ) from None


def _report(training: Training, state: TrainState, known: TrainedOn, remarks: Sequence[str]) -> Evaluation:
    """Evaluate and sample the trained model, and leave both in the run folder."""
    recipe, folder, test, step = training.recipe, training.folder, training.test, int(state.step)
    model = state.ema_model if recipe.evaluation.weights == "ema" else state.model
    remarks = (*remarks, *check_model_of_run(recipe, model, test.pixels).refuse().remarks)
    limit = 60 * recipe.evaluation.minutes
    evaluation = evaluate(model, test, recipe, step=step, trained_on=known.prints, remarks=remarks, seconds=limit)
    write_json(folder.evaluation, evaluation.as_json())
    training.log.scalars(step, {f"test/{name}": getattr(evaluation, name) for name in ("bpd", "bpd_low", "bpd_high")})
    picture = picture_beside_real(model, test, recipe)
    if picture is None:
        folder.samples.unlink(missing_ok=True)  # of an earlier end of this run
    else:
        write_png(picture, folder.samples)
        training.log.picture(step, "samples", picture)
    return evaluation
