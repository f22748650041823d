# SPDX-License-Identifier: Apache-2.0
"""Converts a run to another path or prediction without training, and checks that the bound is the same."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vdmkit.assembly import (
    build_state,
    carry,
    converted_recipe,
    refuse_untranslatable,
    started_anew,
    training_counts,
)
from vdmkit.checkpoint import CheckpointStore
from vdmkit.data import Images, batches
from vdmkit.errors import UntrustedError
from vdmkit.files import write_json
from vdmkit.likelihood import VariationalBound, log_likelihood, sample_of
from vdmkit.model import DiffusionModel
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe, dump
from vdmkit.registry import plugin_sources
from vdmkit.run._folder import RunFolder
from vdmkit.run._load import Run
from vdmkit.run._manifest import session
from vdmkit.run._origin import name_of_images, origin_of
from vdmkit.run._trained_on import keep, read_trained_on
from vdmkit.training import TrainState

_IMAGES, _DRAWS = 64, 32
_ROUNDING = 1e-3  # bits/dim, the largest effect of float32 rounding with any prediction


@dataclass(frozen=True)
class Conversion:
    """Bits/dim of the same images with the same draws, before and after."""

    before: float
    after: float
    images: int

    def __str__(self) -> str:
        return (
            f"bound before {self.before:.5f}, after {self.after:.5f} bits/dim "
            f"(the same {self.images} test images and draws; difference {self.after - self.before:+.1e})"
        )


def convert(run: Run, target: Recipe, folder: RunFolder, *, where: str = "--to") -> Conversion:
    """Makes `folder` a run of the same model with the path and the prediction of `target`, and measures both.

    The schedule, the parameters and the step are the run's; the optimiser starts anew. `where` is the name of `target`
    in messages.

    Raises:
        CheckpointError: the folder is in use.
        RecipeError: the predictions differ, and one of them is not a direction in x and eps.
        UntrustedError: the bounds differ by more than rounding; nothing is written.
    """
    folder.check_new("-o")
    recipe = converted_recipe(run.recipe, target)
    source = recipe.data.build()
    train, test = source.load("train"), source.load("test")
    counts = training_counts(recipe, train)
    if recipe.model.prediction != run.recipe.model.prediction:
        refuse_untranslatable(run.recipe, counts, f"--ckpt {run.folder.path}")
        refuse_untranslatable(recipe, counts, where)
    template = build_state(recipe, counts).model
    model, ema = (carry(old, template) for old in (run.state.model, run.state.ema_model))
    found = _compare(run.state.ema_model, ema, test, recipe)
    save_as(
        run,
        recipe,
        started_anew(recipe, model, ema, run.state.step),
        train,
        folder,
        f"Converted from {run.folder.path.name}",
    )
    return found


def _compare(before: DiffusionModel, after: DiffusionModel, test: Images, recipe: Recipe) -> Conversion:
    images = test.pixels[sample_of(len(test.pixels), _IMAGES)]
    key, steps = fold_purpose(jax.random.key(recipe.seed), "convert"), recipe.evaluation_steps

    def bound(model: DiffusionModel) -> float:
        found = log_likelihood(model, images, estimator=VariationalBound(steps, draws=_DRAWS), key=key)
        return found.bits_per_dim.value

    first, second = bound(before), bound(after)
    if not abs(first - second) < _ROUNDING:
        raise UntrustedError(f"the bound was {first:.4f} and is {second:.4f} bits/dim: not the same model.")
    return Conversion(first, second, len(images))


def save_as(run: Run, recipe: Recipe, state: TrainState, train: Images, folder: RunFolder, remark: str) -> None:
    """Makes `folder` a run of this recipe and state, with the history of `run`."""
    facts, settings = run.folder.facts(), recipe.training
    folder.path.mkdir(parents=True, exist_ok=True)
    data = batches(train, batch_size=settings.batch_size, seed=recipe.seed)
    data.set_state(data.get_state() | {"next_index": run.step})
    images = facts["data"] and name_of_images(facts["data"]["train"]["sha256"], facts["shape"], facts["levels"])
    origin = origin_of(recipe, facts["plugins"].values(), images, facts["imported"])
    store = CheckpointStore(folder.checkpoints, keep_last=settings.keep_last, keep_best=settings.keep_best)
    store.save(run.step, jax.tree.map(jnp.asarray, state), data, origin.as_json())
    folder.keep_plugins(plugin_sources(run.folder.kept_plugins()))
    sessions = [*facts["sessions"], session(run.step, run.step)]
    kept = keep(folder, read_trained_on(run))
    write_json(folder.manifest, facts | {"sessions": sessions, "kept": kept, "newest_checkpoint": run.step})
    folder.write_recipe(recipe, f"# {remark}.\n{dump(recipe)}")  # last: it marks a run
