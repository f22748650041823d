# SPDX-License-Identifier: Apache-2.0
"""Converts a trained model to another path or prediction: its recipe, its parameters and its training state."""

from dataclasses import replace
from typing import Any

import equinox as eqx
from jaxtyping import Array

from vdmkit.assembly._model import build_prediction
from vdmkit.assembly._training import build_objective, build_optimizer
from vdmkit.denoiser import Translated, is_direction, learns_range
from vdmkit.errors import RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.recipe import Recipe
from vdmkit.registry import Choice, registry
from vdmkit.training import TrainState


def converted_recipe(trained: Recipe, target: Recipe) -> Recipe:
    """Returns the recipe of a run with another recipe's path and prediction; learned variances are kept beside it."""
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
    """Returns a training state with a new optimiser state and a new objective."""
    opt_state = build_optimizer(recipe).init(_params(model))
    return TrainState(model, _params(ema), opt_state, step, build_objective(recipe))
