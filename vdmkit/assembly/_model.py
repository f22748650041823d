# SPDX-License-Identifier: Apache-2.0
"""Builds the model that a recipe describes."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from vdmkit import data
from vdmkit.data import Images
from vdmkit.denoiser import AbstractPrediction, Estimate
from vdmkit.distribution import AbstractDistribution
from vdmkit.errors import RecipeError
from vdmkit.model import DiffusionModel
from vdmkit.noise import VariancePreserving
from vdmkit.observation import require_even_levels
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe
from vdmkit.registry import Choice


def training_counts(recipe: Recipe, train: Images) -> Int[Array, "h w c v"]:
    """Returns how often each level occurs at each training pixel; zeros if the prediction does not use it."""
    choice = recipe.model.prediction
    if train.levels and "level_counts" in choice.component.injected:
        return jnp.asarray(data.level_counts(train))
    return jnp.zeros((*train.pixels.shape[1:], train.levels), jnp.int32)


def build_model(recipe: Recipe, level_counts: Int[Array, "h w c v"], *, key: PRNGKeyArray) -> DiffusionModel:
    """Builds the model before training. For `level_counts` see `training_counts`."""
    h, w, c, levels = level_counts.shape
    choices = recipe.model
    schedule = choices.schedule.build(key=fold_purpose(key, "schedule"))
    prediction = build_prediction(recipe, level_counts)
    network = choices.network.build(
        shape=(h, w, c),
        outputs=prediction.outputs,
        gamma_range=(schedule.gamma_min, schedule.gamma_max),
        classes=_classes(recipe),
        key=fold_purpose(key, "network"),
    )
    observation = choices.observation.build(levels=levels)
    estimate = shapes_of_estimate(prediction, (h, w, c))
    if estimate.log_probs is not None:
        require_even_levels(observation, f"prediction {choices.prediction.name}")
    image, z_0 = jnp.zeros((h, w, c), jnp.uint8 if levels else float), jnp.zeros((h, w, c))
    eqx.filter_eval_shape(lambda at: observation.log_prob(image, z_0, jnp.zeros(()), lambda: at), estimate)
    _check_kernels(recipe, estimate)
    return DiffusionModel(
        schedule=schedule,
        path=choices.path.build(),
        prediction=prediction,
        network=network,
        observation=observation,
        shape=(h, w, c),
    )


def _classes(recipe: Recipe) -> int:
    """Returns the number of labels if a network reads them; else the data, which may not be here, are not asked."""
    return recipe.data.build().classes if is_told_labels(recipe.model.network) else 0


def build_prediction(recipe: Recipe, level_counts: Int[Array, "h w c v"]) -> AbstractPrediction:
    """Builds the model's prediction. For `level_counts` see `training_counts`."""
    *shape, levels = level_counts.shape
    context = {"shape": tuple(shape), "levels": levels, "level_counts": level_counts, **_distribution(recipe)}
    return recipe.model.prediction.build(**context)


def shapes_of_estimate(prediction: AbstractPrediction, shape: tuple[int, int, int]) -> Estimate:
    """Returns the shapes of a prediction's estimate."""
    z, gamma = jnp.zeros(shape), jnp.zeros(())
    output = jnp.zeros((*shape, prediction.outputs))
    return eqx.filter_eval_shape(prediction, output, z, gamma, VariancePreserving())


def _check_kernels(recipe: Recipe, estimate: Estimate) -> None:
    """Raises RecipeError if a kernel of the recipe needs more than the estimate provides."""
    choices = (recipe.objective.kernel, recipe.sampling.sampler, recipe.likelihood.estimator)
    for kernel in (one for choice in choices for one in choice.nested() if one.kind == "kernel"):
        eqx.filter_eval_shape(kernel.build(), estimate, estimate.x_hat, jnp.zeros(()), -jnp.ones(()))


def _distribution(recipe: Recipe) -> dict[str, AbstractDistribution]:
    """Returns the data's distribution by the name of the parameter; empty if the prediction does not use it."""
    prediction = recipe.model.prediction
    if "distribution" not in prediction.component.injected:
        return {}
    if (found := recipe.data.build().distribution) is None:
        raise RecipeError(
            f"prediction {prediction.name}: the data's distribution is not known; use data gaussian or mixture."
        )
    return {"distribution": found}


def is_told_labels(network: Choice) -> bool:
    """Returns whether this network, or one inside it, reads labels."""
    return any(_reads_labels(one) for one in network.nested() if one.kind == "network")


def _reads_labels(network: Choice) -> bool:
    component, number = network.component, network.component.parameters.get("labels")
    if "classes" not in component.injected or getattr(component.target, "hands_labels_on", False):
        return False
    return number is None or bool(network.params.get("labels", number.default))
