# SPDX-License-Identifier: Apache-2.0
"""Trains a recipe in its run folder, from the start or from the newest checkpoint."""

import secrets
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import ArrayLike

from vdmkit.assembly import (
    build_estimator,
    build_evaluator,
    build_optimizer,
    build_update,
    initial_state_of,
    is_told_labels,
    scalars_of,
)
from vdmkit.checkpoint import CheckpointStore, Restored, steps_in
from vdmkit.data import Images, batches, image_numbers, select
from vdmkit.errors import CheckpointError, DataError, Interrupted, NonFiniteError
from vdmkit.likelihood import against_raw, log_likelihood
from vdmkit.mesh import data_mesh, gather_local
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe
from vdmkit.report import MetricLog
from vdmkit.run._folder import RunFolder
from vdmkit.run._pictures import picture_beside_real
from vdmkit.run._provenance import Provenance
from vdmkit.training import KeptStep, Loop, Metrics, TrainState, Unlogged, is_finite, means, stop_requests, unlogged_in

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
    kept: KeptStep = KeptStep()

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
                while late:  # now the device has a step to compute while the numbers of earlier ones are waited for
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
            if stopping(int(state.step)):  # also if the request came after the last step
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
            self.kept,
        )

    def _log(self, collected: list[Metrics], scalars: dict[str, ArrayLike], step: int, seconds: float) -> None:
        try:
            alike = [one for one in collected if one.keys() == collected[-1].keys()]  # not of another version of vdmkit
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
        """Returns the number of a training image by the step and the row of its batch."""
        settings, data = self.recipe.training, self.folder.provenance().data
        rows, count = slice(row, row + 1), data.train.count if data else 1
        return int(image_numbers(step - 1, rows, batch_size=settings.batch_size, count=count, seed=self.recipe.seed)[0])

    def _name(self, metric: str) -> str:
        """Returns the metric's name; the loss is called bits/dim only if it is the bound."""
        return "loss" if metric == "bpd" and self.recipe.objective.weighting.name != "elbo" else metric

    def _recent(self, recent: list[Metrics]) -> str:
        known = recent[-_RECENT:-2] or recent  # not to wait for the newest
        mean = np.mean([np.asarray(metrics["bpd"]).mean() for metrics in known])
        return f"train {self._name('bpd')} {mean:.3f}"

    def _act(self, state: TrainState, step: int, unlogged: Unlogged, *, at_end: bool, stop: bool) -> None:
        """Evaluates, saves and samples, as the recipe asks for at this step, and saves if the user stops training."""
        settings = self.recipe.training
        bpd = float("inf")
        if _due(step, settings.evaluate_every) and (step < settings.steps or settings.evaluate_draws):
            bpd = self._evaluate(state, step)
        best = bpd < float("inf") and settings.keep_best > 0  # perhaps
        wanted = at_end or _due(step, settings.checkpoint_every) or best
        if wanted or stop:
            self._save(state, step, unlogged, bpd, passing=not wanted)
        if _due(step, settings.sample_every) and step < settings.steps:
            picture = picture_beside_real(self.reported(state), self.test, self.recipe, self.progress)
            if picture is not None:
                self.log.picture(step, "samples", picture)

    def _evaluate(self, state: TrainState, step: int) -> float:
        """Logs a point of the test curve; its name has the number of draws if the reported bound has another."""
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
        """Returns the model that is evaluated and sampled, whole on one device."""
        return gather_local(state.ema_model if self.recipe.evaluation.weights == "ema" else state.model)


@dataclass(frozen=True)
class Start:
    """The start of training: the state, and whether it is that of a checkpoint; batches, checkpoints, and the rest."""

    state: TrainState
    data: grain.DatasetIterator
    store: CheckpointStore
    origin: dict[str, Any]
    restored: bool
    unlogged: Unlogged


def begin(recipe: Recipe, folder: RunFolder, train: Images, made: Provenance, fsdp: int = 1) -> Start:
    """Returns the newest intact checkpoint, or the initial state.

    Raises:
        CheckpointError: the checkpoint has another origin, or is past the recipe's last step; or an imported model has
            no intact checkpoint left.
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
    state = initial_state_of(recipe, train, data_mesh(settings.batch_size, fsdp))

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
