# SPDX-License-Identifier: Apache-2.0
"""Converts a trained run to a different path or prediction without training.

The recipe, the parameters and the training state are converted, and the bound is measured before and after: it must not
change by more than rounding.
"""

import secrets
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from vdmkit.data.batches import batches
from vdmkit.data.sources import Images, Pixels
from vdmkit.errors import RecipeError, UntrustedError
from vdmkit.experiments.folder import RunFolder
from vdmkit.experiments.load import Run, keep, load_test, load_train, read_trained_on
from vdmkit.io import whole_folder
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.log_likelihood import log_likelihood, sample_of
from vdmkit.model import DiffusionModel
from vdmkit.plugins import plugin_sources
from vdmkit.predictions import Translated, is_direction, learns_range
from vdmkit.progress import Progress
from vdmkit.randomness import fold_purpose
from vdmkit.recipes.build import build_objective, build_optimizer, build_prediction, build_state, training_counts
from vdmkit.recipes.schema import Recipe, dump
from vdmkit.registry import Choice, registry
from vdmkit.training.checkpoints import CheckpointStore
from vdmkit.training.loop import session
from vdmkit.training.step import TrainState


def converted_recipe(trained: Recipe, target: Recipe) -> Recipe:
    """Returns the run's recipe with the target's path and prediction; learned variances are kept."""
    before, after = trained.model, target.model
    network, prediction = before.network, after.prediction
    if learns_range(before.prediction) and is_direction(prediction) and not learns_range(prediction):
        prediction = Choice("prediction", "with_range", {"of": prediction})
    if before.prediction != prediction or is_direction(before.prediction):
        parts = {"trained_as": before.prediction, "trained_on": before.path}
        parts |= {"read_as": prediction, "read_on": after.path}
        network = Choice("network", "translated", {"network": before.network, **parts})
    model = replace(before, path=after.path, prediction=prediction, network=network)
    return replace(trained, model=model)


def refuse_untranslatable(recipe: Recipe, counts: Array, where: str) -> None:
    """Raises RecipeError for a prediction that cannot be converted, such as one over levels."""
    prediction = recipe.model.prediction
    if is_direction(prediction):
        return
    outputs = build_prediction(recipe, counts).outputs
    found = f"has {outputs} outputs a pixel and channel" if outputs > 1 else "is not a direction in x and eps"
    every = (Choice("prediction", name) for name in sorted(registry("prediction").components))
    known = ", ".join(choice.name for choice in every if is_direction(choice))
    raise RecipeError(f"{where}: prediction {prediction.name!r} {found}; convert needs one of {known}.")


def carry(old: DiffusionModel, template: DiffusionModel) -> DiffusionModel:
    """Returns the model that `template` describes, with the parameters of `old`."""
    network = template.network
    if isinstance(network, Translated):
        network, prediction = eqx.tree_at(lambda n: n.inner, network, old.network), template.prediction
    else:
        network, prediction = old.network, old.prediction
    parts = {"path": template.path, "prediction": prediction, "network": network}
    return DiffusionModel(schedule=old.schedule, observation=old.observation, shape=old.shape, **parts)


def _params(model: DiffusionModel) -> Any:
    return eqx.filter(model, eqx.is_inexact_array)


def started_anew(recipe: Recipe, model: DiffusionModel, ema: DiffusionModel, step: Array) -> TrainState:
    """Returns a training state with these models and step, and with an initial optimiser state and objective."""
    opt_state = build_optimizer(recipe).init(_params(model))
    return TrainState(model, _params(ema), opt_state, step, build_objective(recipe))


_IMAGES, _DRAWS = 64, 32
_ROUNDING = 1e-3  # bits/dim, the largest effect of float32 rounding with any prediction


@dataclass(frozen=True)
class Conversion:
    """Bits/dim of the same images with the same draws, before and after a conversion."""

    before: float
    after: float
    images: int

    def __str__(self) -> str:
        return (
            f"bound before {self.before:.5f}, after {self.after:.5f} bits/dim "
            f"(the same {self.images} test images and draws; difference {self.after - self.before:+.1e})"
        )


def check_same_bound(
    before: DiffusionModel,
    after: DiffusionModel,
    pixels: Pixels,
    *,
    steps: int,
    key: PRNGKeyArray,
    progress: Progress = None,
) -> Conversion:
    """Measures the T-step bounds (T = `steps`) of both models on the same few images with the same draws.

    Raises UntrustedError if they differ by more than rounding.
    """
    images = pixels[sample_of(len(pixels), _IMAGES)]

    def bound(model: DiffusionModel) -> float:
        found = log_likelihood(
            model, images, estimator=VariationalBound(steps, draws=_DRAWS), key=key, progress=progress
        )
        return found.bits_per_dim.value

    first, second = bound(before), bound(after)
    if not abs(first - second) < _ROUNDING:
        raise UntrustedError(f"the bound was {first:.4f} and is {second:.4f} bits/dim: not the same model.")
    return Conversion(first, second, len(images))


def convert(run: Run, target: Recipe, folder: RunFolder, *, where: str = "--to") -> Conversion:
    """Makes `folder` a run of the same model with the path and the prediction of `target`, and measures both.

    The schedule, the parameters and the step are those of the run; the optimiser state is initialised again. `where`
    names `target` in messages.

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
    """Makes the new `folder` a run of this recipe and state, with the history of `run`."""
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
