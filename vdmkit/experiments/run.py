# SPDX-License-Identifier: Apache-2.0
"""Trains, evaluates and samples a recipe in a run folder, from the start or from the newest checkpoint.

`vdmkit.train` and `vdmkit.load` are the Python interface. At the end of a run samples are drawn and shown next to as
many real images.
"""

import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import ArrayLike, UInt8

from vdmkit.arguments import check_one_of
from vdmkit.conformance.recipe import check_before_training, check_model_of_recipe
from vdmkit.data.batches import batches, image_numbers
from vdmkit.data.identity import TrainedOn, check_comparable, check_like, fingerprints_of, groups_of, trained_on
from vdmkit.data.sources import Images, select
from vdmkit.devices import build_on, data_mesh, gather_local
from vdmkit.errors import CheckpointError, DataError, Interrupted, NonFiniteError, RecipeError
from vdmkit.experiments.folder import Provenance, RunFolder, provenance_of
from vdmkit.experiments.load import Run, Weights, keep, load_run
from vdmkit.experiments.measure import evaluate
from vdmkit.io import write_results
from vdmkit.likelihood.comparison import against_raw
from vdmkit.likelihood.intervals import check_count, check_distinct
from vdmkit.likelihood.log_likelihood import log_likelihood
from vdmkit.likelihood.report import LikelihoodReport
from vdmkit.model import DiffusionModel
from vdmkit.plugins import plugin_sources
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.recipes.build import (
    build_estimator,
    build_evaluator,
    build_optimizer,
    build_sampling,
    build_state,
    build_update,
    health_facts,
    is_told_labels,
    scalars_of,
    training_counts,
)
from vdmkit.recipes.loading import as_overrides, as_text, load_for_run
from vdmkit.recipes.schema import Recipe
from vdmkit.report.charts import grid, side_by_side, write_png
from vdmkit.report.metrics import MetricLog
from vdmkit.sampling.sample import draw_samples, fit_into
from vdmkit.training.checkpoints import CheckpointStore, Restored, steps_in
from vdmkit.training.loop import Loop, Unlogged, means, session, stop_requests, unlogged_in
from vdmkit.training.step import Metrics, TrainState, is_finite


def picture_beside_real(
    model: DiffusionModel, real: Images, recipe: Recipe, progress: Progress
) -> UInt8[np.ndarray, "H W c"] | None:
    """Returns a picture with samples on the left and the first images of `real` on the right.

    If the time limit allows fewer samples than requested, it prints a message. If samples are not finite, it prints a
    message and returns None instead of raising, so that training and evaluation are not lost.
    """
    settings, config = recipe.sampling, build_sampling(recipe)
    wanted = min(settings.count, len(real.pixels))
    count, steps = fit_into(model, config, wanted, seconds=60 * settings.minutes)
    if (count, steps) != (wanted, config.steps):
        print(
            f"sampling: {wanted} images of {config.steps} steps would take more than sampling.minutes = "
            f"{settings.minutes:g} here; drawing {count} of {steps} steps.",
            file=sys.stderr,
        )
    try:
        key = jax.random.key(recipe.seed)
        samples = draw_samples(model, replace(config, steps=steps), count, key=key, progress=progress)
    except NonFiniteError as error:
        print(f"sampling: no picture. {error}", file=sys.stderr)
        return None
    return side_by_side(grid(samples, real.levels), grid(np.asarray(real.pixels[:count]), real.levels))


_RECENT = 50  # dispatches in the running bpd that the progress bar shows


@dataclass(frozen=True)
class Training:
    """The training of one recipe in a run folder."""

    recipe: Recipe
    folder: RunFolder
    test: Images
    start: "Start"
    log: MetricLog
    progress: Progress = None

    def run(self) -> TrainState:
        """Trains to the recipe's last step and saves the state.

        Raises:
            Interrupted: the user asked to stop; the state was saved.
            NonFiniteError: a term was not finite; the last good checkpoint is kept.
        """
        settings = self.recipe.training
        intervals = (settings.log_every, settings.checkpoint_every, settings.evaluate_every, settings.sample_every)
        state, (collected, seconds) = self.start.state, self.start.unlogged
        late, start = list[partial[None]](), time.monotonic() - seconds
        tracked = track(self.progress, "training", settings.steps, int(state.step))
        with stop_requests(settings.steps) as stopping, tracked as advance:
            updates = self._loop().updates(state, settings.steps, intervals)
            for state, step, metrics in updates:
                collected.append(metrics)
                advance(len(metrics["bpd"]), lambda recent=collected: self._recent(recent))
                while late:  # the device computes the next step while the host waits for earlier metrics
                    late.pop()()
                stop, at_end = stopping(step), step == settings.steps
                if at_end or any(_due(step, interval) for interval in intervals):
                    scalars = scalars_of(self.recipe, state, step)
                    late.append(partial(self._log, collected, scalars, step, time.monotonic() - start))
                    collected = []
                if stop or at_end or any(_due(step, interval) for interval in intervals[1:]):
                    while late:
                        late.pop()()
                    self._act(state, step, Unlogged(collected, time.monotonic() - start), at_end=at_end, stop=stop)
                if stop:
                    break
                if not collected:
                    start = time.monotonic()
            if stopping(int(state.step)):  # also if the request came during the last step
                where = f"step {int(state.step):,} of {settings.steps:,}"
                raise Interrupted(f"Stopped at {where} and saved. To go on, run the same command again.")
        return state

    def _loop(self) -> Loop:
        recipe = self.recipe
        return Loop(
            build_update(recipe, build_optimizer(recipe)),
            self.start.data,
            fold_purpose(jax.random.key(recipe.seed), "train"),
            recipe.training.batch_size,
            recipe.training.steps_per_dispatch,
        )

    def _log(self, collected: list[Metrics], scalars: dict[str, ArrayLike], step: int, seconds: float) -> None:
        try:
            alike = [one for one in collected if one.keys() == collected[-1].keys()]  # older versions logged other keys
            values = means(alike, step, self._image_of)
        except NonFiniteError as error:
            if self.log.watch:
                self.log.watch.stopped(step, str(error))
            raise NonFiniteError(f"{error} {self._advice()}") from None
        rate = sum(len(m["bpd"]) for m in collected) / seconds
        trained = {f"train/{self._name(name)}": value for name, value in values.items()}
        found = {name: float(np.asarray(value)) for name, value in scalars.items()}
        self.log.scalars(step, {**trained, "steps_per_second": rate, **found})

    def _image_of(self, step: int, row: int) -> int:
        """Returns the index of a training image from the step and its row in the batch."""
        settings, data = self.recipe.training, self.folder.provenance().data
        rows, count = slice(row, row + 1), data.train.count if data else 1
        return int(image_numbers(step - 1, rows, batch_size=settings.batch_size, count=count, seed=self.recipe.seed)[0])

    def _name(self, metric: str) -> str:
        """Returns the metric's name; the loss is called bits/dim only if it is the bound."""
        return "loss" if metric == "bpd" and self.recipe.objective.weighting.name != "elbo" else metric

    def _recent(self, recent: list[Metrics]) -> str:
        known = recent[-_RECENT:-2] or recent  # the newest may still be computing
        mean = np.mean([np.asarray(metrics["bpd"]).mean() for metrics in known])
        return f"train {self._name('bpd')} {mean:.3f}"

    def _act(self, state: TrainState, step: int, unlogged: Unlogged, *, at_end: bool, stop: bool) -> None:
        """Evaluates, saves and samples if it is due at this step, and saves if the user stops training."""
        settings = self.recipe.training
        bpd = float("inf")
        if _due(step, settings.evaluate_every) and (step < settings.steps or settings.evaluate_draws):
            bpd = self._evaluate(state, step)
        best = bpd < float("inf") and settings.keep_best > 0  # the store decides whether it is kept
        wanted = at_end or _due(step, settings.checkpoint_every) or best
        if wanted or stop:
            self._save(state, step, unlogged, bpd, passing=not wanted)
        if _due(step, settings.sample_every) and step < settings.steps:
            picture = picture_beside_real(self.reported(state), self.test, self.recipe, self.progress)
            if picture is not None:
                self.log.picture(step, "samples", picture)

    def _evaluate(self, state: TrainState, step: int) -> float:
        """Logs a point of the test curve; its name includes the number of draws if `evaluate_draws` is set."""
        draws = self.recipe.training.evaluate_draws
        name = f"test/bpd_of_{draws}_draws" if draws else "test/bpd"
        settings = replace(self.recipe.evaluation, draws=draws or self.recipe.evaluation.draws)
        estimator = build_evaluator(replace(self.recipe, evaluation=settings))
        how = {"estimator": estimator, "batch_size": settings.batch_size}
        key = jax.random.key(self.recipe.seed)
        measured = log_likelihood(self.reported(state), self.test.pixels, key=key, progress=self.progress, **how)
        bpd, raw = measured.bits_per_dim.value, {}
        if settings.weights == "ema":
            some = select(self.test.pixels, np.arange(min(max(settings.batch_size, 2), len(self.test.pixels))))
            raw = against_raw(measured, log_likelihood(gather_local(state.model), some, key=key, **how))
        self.log.scalars(step, {name: bpd, **raw})
        return bpd

    def _save(self, state: TrainState, step: int, unlogged: Unlogged, bpd: float, *, passing: bool) -> None:
        if not is_finite(state):
            raise NonFiniteError(f"training stopped: a parameter was not finite after step {step}. {self._advice()}")
        meta = self.start.origin | unlogged.as_json()
        self.start.store.save(step, state, self.start.data, meta, bpd=bpd, passing=passing)
        self.folder.note_saved(step, self.log.count)

    def _advice(self) -> str:
        saved = steps_in(self.folder.checkpoints)
        kept = f"The last good checkpoint is that of step {saved[-1]}" if saved else "No checkpoint was saved yet"
        return (
            f"{kept}, in {self.folder.checkpoints}. "
            "Try a lower optimizer.learning_rate or an optimizer.clip_norm, in another folder (--out)."
        )

    def reported(self, state: TrainState) -> DiffusionModel:
        """Returns the model that is evaluated and sampled, unsharded on one device."""
        return gather_local(state.ema_model if self.recipe.evaluation.weights == "ema" else state.model)


@dataclass(frozen=True)
class Start:
    """The start of training: the state, whether it was restored, the batches, the checkpoints and unlogged metrics."""

    state: TrainState
    data: grain.DatasetIterator
    store: CheckpointStore
    origin: dict[str, Any]
    restored: bool
    unlogged: Unlogged


def begin(recipe: Recipe, folder: RunFolder, train: Images, made: Provenance, fsdp: int = 1) -> Start:
    """Restores the newest intact checkpoint, or builds the initial state.

    Raises:
        CheckpointError: the checkpoint has a different origin, or is past the recipe's last step; or an imported model
            has no intact checkpoint left.
        DataError: the network needs labels, and the images have none.
        RecipeError: the model, or the estimator of its likelihood, cannot be built.
    """
    settings = recipe.training
    augmentations = [choice.build() for choice in recipe.augmentations]
    process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    data = batches(train, augmentations, batch_size=settings.batch_size, seed=recipe.seed, **process)
    store = CheckpointStore(folder.checkpoints, keep_last=settings.keep_last, keep_best=settings.keep_best)
    if is_told_labels(recipe.model.network) and train.labels is None:
        advice = "Choose data with labels (a new run or import, --set data.classes=N), or a network that is told none."
        of_network = f"network {recipe.model.network.name!r} is told labels, and"
        raise DataError(f"{of_network} {train.identity.name} has none. {advice}")
    build_estimator(recipe, train.levels)
    state = build_on(data_mesh(settings.batch_size, fsdp), build_state, recipe, training_counts(recipe, train))

    def check(restored: Restored | None) -> None:
        if restored is None:
            return _refuse_beginning(folder, made)
        made.check(recipe, folder.checkpoints, restored)
        if restored.step > settings.steps:
            raise CheckpointError(
                f"{folder.path}: this run is at step {restored.step:,} already, past training.steps = "
                f"{settings.steps:,}. Ask for more steps, or choose another folder with --out."
            )

    warn = partial(print, file=sys.stderr)
    restored = store.restore(state, data, saved=made.newest_checkpoint, warn=warn, check=check)
    if made.run is None:
        made = replace(made, run=restored.meta.get("run", "") if restored else secrets.token_hex(8))
    found, meta = (state, {}) if restored is None else (restored.state, restored.meta)
    unlogged = unlogged_in(meta, folder.checkpoints)
    return Start(found, data, store, made.origin(recipe), restored is not None, unlogged)


def _refuse_beginning(folder: RunFolder, made: Provenance) -> None:
    if made.imported:
        raise CheckpointError(
            f"{folder.checkpoints}: no whole checkpoint is left of this imported model, and training from the "
            "beginning would make another. Import it again, into another folder."
        )


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


def run_recipe(
    recipe: Recipe, text: str, folder: RunFolder, plugins: Sequence[Path], *, progress: Progress = None, fsdp: int = 1
) -> LikelihoodReport:
    """Trains `recipe`, whose file has the contents `text`, in `folder`; an interrupted run is resumed.

    With `progress` "auto" it also prints the identities of the images, and the step from which it continues, on
    standard error.

    Raises:
        Interrupted: the user asked to stop; the training state is saved.
        UntrustedError: a component fails the checks of its kind.
        VdmkitError: the data or the folder is invalid, or training or evaluation fails.
    """
    folder.check(recipe, plugins)
    sources = plugin_sources(plugins)
    with folder.locked():
        earlier = folder.provenance() if folder.manifest.exists() else None
        source = recipe.data.build()
        train, test = source.load("train"), source.load("test")
        check_count(test.pixels)
        if earlier and earlier.imported:
            check_like(train, earlier.shape, earlier.levels)
        check_before_training(recipe, source, train, test).refuse()
        known = trained_on(train)
        check_distinct(groups_of(fingerprints_of(test), known.fingerprints))
        check_comparable(known, test)
        made, say = provenance_of(train, test, sources, earlier), partial(print, file=sys.stderr)
        is_missing = made.newest_checkpoint not in (None, *steps_in(folder.checkpoints))
        start = begin(recipe, folder, train, made, fsdp)
        check_model_of_recipe(recipe, gather_local(start.state.ema_model), train.pixels).refuse()
        step = int(start.state.step)
        # After the checks, so that a refused command prints only the reason and changes nothing in the folder.
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
            training = Training(recipe, folder, test, start, log, progress)
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
        folder.samples.unlink(missing_ok=True)  # left by an earlier end of this run
    else:
        write_png(picture, folder.samples)
        training.log.picture(step, "samples", picture)
    return evaluation


StrPath = str | os.PathLike[str]


def load(
    path: StrPath,
    *,
    step: int | None = None,
    weights: Weights = "ema",
    overrides: Mapping[str, Any] | Iterable[str] = (),
    plugins: Iterable[StrPath] = (),
    trust: bool = False,
) -> Run:
    """Reads a run folder. Its plugin files are executed if this user made a run with them on this machine.

    Args:
        path: The run folder.
        step: Step of the checkpoint; by default the newest.
        weights: Averaged ("ema") or "raw" parameters, for `Run.model`.
        overrides: Recipe keys that may change after training, such as {"sampling.steps": 50}.
        plugins: Python files that register more components.
        trust: Whether to execute plugin files of a run folder from someone else.

    Raises:
        UnknownCodeError: this user made no run with one of the plugin files on this machine, and `trust` is false.
        CheckpointError: the folder is not a run, or its checkpoint is missing, damaged, or from a different run.
        RecipeError: an override changes what was trained.
    """
    check_one_of("weights", weights, ("ema", "raw"))
    return load_run(path, as_overrides(overrides), [Path(file) for file in plugins], step, weights, trust=trust)


def train(
    recipe: StrPath | Mapping[str, Any],
    *,
    out: StrPath | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    plugins: Iterable[StrPath] = (),
    progress: Progress = None,
) -> Run:
    """Trains, evaluates and samples a recipe in a run folder, as `vdmkit run` does. An existing run is resumed.

    Args:
        recipe: The name of a shipped recipe, a TOML file, or its tables as a dict.
        out: The run folder; runs/RECIPE by default.
        overrides: Recipe keys, such as {"training.steps": 400}.
        plugins: Python files that register components.
        progress: None, "auto" for the display of `vdmkit run`, or an object like `vdmkit.progress.Meter`.

    Raises:
        VdmkitError: the recipe, the data or the folder is invalid, or training or evaluation fails.
    """
    if isinstance(recipe, Mapping):
        if out is None:
            raise RecipeError("train: a recipe that is a dict needs a run folder. Give `out`.")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "recipe.toml"
            path.write_text(as_text(recipe))
            try:
                return train(path, out=out, overrides=overrides, plugins=plugins, progress=progress)
            except RecipeError as error:
                raise RecipeError(re.sub(rf"{re.escape(str(path))}(:\d+)*", "recipe", str(error))) from None
    files = [Path(file) for file in plugins]
    checked, text, path = load_for_run(recipe, None if out is None else Path(out), as_overrides(overrides), files)
    run_recipe(checked, text, RunFolder(path), files, progress=progress)
    return load_run(path)
