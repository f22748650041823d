# SPDX-License-Identifier: Apache-2.0
"""Trains, evaluates and samples a recipe in a run folder."""

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from vdmkit.assembly import health_facts
from vdmkit.checkpoint import steps_in
from vdmkit.data import TrainedOn, check_comparable, check_like, groups_of, prints_of, trained_on
from vdmkit.errors import Interrupted
from vdmkit.files import write_results
from vdmkit.likelihood import LikelihoodReport, check_count, check_distinct
from vdmkit.mesh import gather_local
from vdmkit.progress import Progress
from vdmkit.recipe import Recipe, text_if_own
from vdmkit.registry import plugin_sources
from vdmkit.report import MetricLog, write_png
from vdmkit.run._folder import RunFolder
from vdmkit.run._likelihood import evaluate
from vdmkit.run._pictures import picture_beside_real
from vdmkit.run._provenance import provenance_of
from vdmkit.run._train import Start, Training, begin
from vdmkit.run._trained_on import keep
from vdmkit.testing import check_before_training, check_model_of_recipe, check_start_of_recipe
from vdmkit.training import TrainState, load_ahead, session


def run_recipe(
    recipe: Recipe, text: str, folder: RunFolder, plugins: Sequence[Path], *, progress: Progress = None, fsdp: int = 1
) -> LikelihoodReport:
    """Trains `recipe`, whose file has the contents `text`, in `folder`; an interrupted run continues.

    With `progress` "auto" it also prints the images, and the step from which it continues, on standard error.

    Raises:
        Interrupted: the user asked to stop; the training state is saved.
        UntrustedError: a component fails the checks of its kind.
        VdmkitError: the data or the folder is invalid, or training or evaluation fails.
    """
    folder.check(recipe, plugins)
    sources = plugin_sources(plugins)
    with folder.locked():
        earlier = folder.provenance() if folder.manifest.exists() else None
        ahead = load_ahead(text_if_own(recipe))
        source = recipe.data.build()
        train, test = source.load("train"), source.load("test")
        check_count(test.pixels)
        if earlier and earlier.imported:
            check_like(train, earlier.shape, earlier.levels)
        check_before_training(recipe, source, train, test).refuse()
        known = trained_on(train)
        check_distinct(groups_of(prints_of(test), known.prints))
        check_comparable(known, test)
        made, say = provenance_of(train, test, sources, earlier), partial(print, file=sys.stderr)
        is_missing = made.newest_checkpoint not in (None, *steps_in(folder.checkpoints))
        start = begin(recipe, folder, train, made, fsdp)
        check_start_of_recipe(recipe, gather_local(start.state.ema_model), train).refuse()
        step = int(start.state.step)
        # After the checks: a refused command changes nothing in the folder, and prints the reason only.
        folder.say_new_end(recipe, plugins)
        if is_missing:
            place = folder.checkpoints / str(made.newest_checkpoint)
            say(f"{place}: this checkpoint, the last that was saved, is missing. Training goes on from step {step:,}.")
        folder.write_recipe(recipe, text)
        folder.keep_plugins(sources)
        now = session(step, recipe.training.steps)
        known = TrainedOn() if made.imported else known  # the images of its earlier training are unknown
        newest = max(steps_in(folder.checkpoints), default=None)  # damaged checkpoints have been moved away
        made = replace(made, run=start.origin["run"], sessions=[*made.sessions, now])
        kept = folder.hashes_of(recipe, text) | keep(folder, known)
        logged = made.logged if newest == made.newest_checkpoint else 0
        folder.record(replace(made, kept=kept, newest_checkpoint=newest, logged=logged))
        if progress == "auto":
            begun = _begun(folder, start, recipe.training.steps)
            say(f"{begun}train  {train.identity}\ntest   {test.identity}")
        facts = health_facts(recipe, start.state.model, train)
        with closing(MetricLog(folder.path, step=step, facts=facts, say=say)) as log:
            training = Training(recipe, folder, test, start, log, progress, ahead)
            return _close(training, training.run(), known)


def _begun(folder: RunFolder, start: Start, last: int) -> str:
    step = int(start.state.step)
    if not start.restored:
        return ""
    if step >= last:
        return f"{folder.path} is trained to its last step, {step:,}; it is evaluated and sampled again\n"
    return f"continuing {folder.path} from step {step:,}\n"


def _close(training: Training, state: TrainState, known: TrainedOn) -> LikelihoodReport:
    try:
        return _report(training, state, known)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped after training: its last step, {int(state.step):,}, is saved in {training.folder.checkpoints}. "
            "To evaluate and sample, run the same command again."
        ) from None


def _report(training: Training, state: TrainState, known: TrainedOn) -> LikelihoodReport:
    """Evaluates and samples the trained model, and writes both to the run folder."""
    recipe, folder, test, step = training.recipe, training.folder, training.test, int(state.step)
    model = training.reported(state)
    findings = check_model_of_recipe(recipe, model, test.pixels).refuse()
    limit = 60 * recipe.evaluation.minutes
    how = {"step": step, "findings": findings, "seconds": limit, "progress": training.progress}
    evaluation = evaluate(recipe, model, test, known, **how)
    write_results(folder.evaluation, evaluation.as_json())
    training.log.scalars(step, {f"test/{name}": getattr(evaluation, name) for name in ("bpd", "bpd_low", "bpd_high")})
    folder.note_saved(step, training.log.count)
    picture = picture_beside_real(model, test, recipe, training.progress)
    if picture is None:
        folder.samples.unlink(missing_ok=True)  # from an earlier end of this run
    else:
        write_png(picture, folder.samples)
        training.log.picture(step, "samples", picture)
    return evaluation
