# SPDX-License-Identifier: Apache-2.0
"""Converts a run to another path or prediction without training, and checks that the bound is the same."""

import secrets
from dataclasses import replace

import jax
import jax.numpy as jnp

from vdmkit.assembly import (
    Conversion,
    build_state,
    carry,
    check_same_bound,
    converted_recipe,
    refuse_untranslatable,
    started_anew,
    training_counts,
)
from vdmkit.checkpoint import CheckpointStore
from vdmkit.data import Images, batches
from vdmkit.files import whole_folder
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe, dump
from vdmkit.registry import plugin_sources
from vdmkit.run._evaluate import load_test, load_train
from vdmkit.run._folder import RunFolder
from vdmkit.run._load import Run
from vdmkit.run._trained_on import keep, read_trained_on
from vdmkit.training import TrainState, session


def convert(run: Run, target: Recipe, folder: RunFolder, *, where: str = "--to") -> Conversion:
    """Makes `folder` a run of the same model with the path and the prediction of `target`, and measures both.

    The schedule, the parameters and the step are the run's; the optimiser starts anew. `where` is the name of `target`
    in messages.

    Raises:
        CheckpointError: the folder is in use.
        RecipeError: the predictions differ, and one of them is not a direction in x and eps.
        UntrustedError: the bounds differ by more than rounding, or the test images are not those of the run; nothing is
            written.
    """
    folder.check_new("-o")
    recipe = converted_recipe(run.recipe, target)
    train, test = load_train(run), load_test(run)
    counts = training_counts(recipe, train)
    if recipe.model.prediction != run.recipe.model.prediction:
        refuse_untranslatable(run.recipe, counts, f"--ckpt {run.folder.path}")
        refuse_untranslatable(recipe, counts, where)
    template = build_state(recipe, counts).model
    model, ema = (carry(old, template) for old in (run.state.model, run.state.ema_model))
    key = fold_purpose(jax.random.key(recipe.seed), "convert")
    how = {"steps": recipe.evaluation_steps, "key": key, "progress": "auto"}
    found = check_same_bound(run.state.ema_model, ema, test.pixels, **how)
    state = started_anew(recipe, model, ema, run.state.step)
    save_as(run, recipe, state, train, folder, f"Converted from {run.folder.path.name}")
    return found


def save_as(run: Run, recipe: Recipe, state: TrainState, train: Images, folder: RunFolder, remark: str) -> None:
    """Makes `folder`, which is new, a run of this recipe and state, with the history of `run`."""
    with whole_folder(folder.path) as part:
        _save(run, recipe, state, train, RunFolder(part), remark)


def _save(run: Run, recipe: Recipe, state: TrainState, train: Images, folder: RunFolder, remark: str) -> None:
    made, settings = replace(run.folder.provenance(), run=secrets.token_hex(8)), recipe.training
    data = batches(train, batch_size=settings.batch_size, seed=recipe.seed)
    data.set_state(data.get_state() | {"next_index": run.step})
    store = CheckpointStore(folder.checkpoints, keep_last=settings.keep_last, keep_best=settings.keep_best)
    store.save(run.step, jax.tree.map(jnp.asarray, state), data, made.origin(recipe))
    folder.keep_plugins(plugin_sources(run.folder.kept_plugins()))
    text, sessions = f"# {remark}.\n{dump(recipe)}", [*made.sessions, session(run.step, run.step)]
    kept = folder.hashes_of(recipe, text) | keep(folder, read_trained_on(run))
    folder.record(replace(made, sessions=sessions, kept=kept, newest_checkpoint=run.step, logged=0))
    folder.write_recipe(recipe, text)
