# SPDX-License-Identifier: Apache-2.0
"""From a checked recipe to the objects that it describes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from vdmkit import data
from vdmkit.choice import Choice
from vdmkit.data import AbstractSource, Images
from vdmkit.denoiser import AbstractPrediction, Estimate, Translated
from vdmkit.distribution import AbstractDistribution
from vdmkit.errors import RecipeError, VdmkitError
from vdmkit.likelihood import AbstractEstimator
from vdmkit.model import DiffusionModel
from vdmkit.noise import VariancePreserving, check_ends, check_increasing, steps_of_bound
from vdmkit.objective import Objective, check_variance
from vdmkit.observation import require_even_levels
from vdmkit.optimizer import adamw, interior_apart, learning_rates
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe
from vdmkit.sampling import Guidance
from vdmkit.training import TrainState, Update, initial_state

_MADE_UP_SHAPES = ((64, 64, 3), (120, 120, 3))


def training_counts(recipe: Recipe, train: Images) -> Int[Array, "h w c v"]:
    """How often each level occurs at each pixel of the training set; zeros where the prediction does not ask."""
    choice = recipe.model.prediction
    if train.levels and "level_counts" in choice.component.injected:
        return jnp.asarray(data.level_counts(train))
    return jnp.zeros((*train.pixels.shape[1:], train.levels), jnp.int32)


def build_model(recipe: Recipe, level_counts: Int[Array, "h w c v"], *, key: PRNGKeyArray) -> DiffusionModel:
    """The model before training. For `level_counts` see `training_counts`."""
    h, w, c, levels = level_counts.shape
    choices = recipe.model
    schedule = choices.schedule.build(key=fold_purpose(key, "schedule"))
    prediction = build_prediction(recipe, level_counts)
    network = choices.network.build(
        shape=(h, w, c),
        outputs=prediction.outputs,
        gamma_range=(schedule.gamma_min, schedule.gamma_max),
        classes=recipe.data.build().classes,
        key=fold_purpose(key, "network"),
    )
    observation = choices.observation.build(levels=levels)
    estimate = shapes_of_estimate(prediction, (h, w, c))
    if estimate.log_probs is not None:
        require_even_levels(observation, f"prediction {choices.prediction.name}")
    _check_kernels(recipe, estimate)
    return DiffusionModel(schedule, choices.path.build(), prediction, network, observation, (h, w, c))


def build_prediction(recipe: Recipe, level_counts: Int[Array, "h w c v"]) -> AbstractPrediction:
    """The model's. For `level_counts` see `training_counts`."""
    *shape, levels = level_counts.shape
    context = {"shape": tuple(shape), "levels": levels, "level_counts": level_counts, **_distribution(recipe)}
    return recipe.model.prediction.build(**context)


def shapes_of_estimate(prediction: AbstractPrediction, shape: tuple[int, int, int]) -> Estimate:
    """The shapes of what it knows of a latent."""
    z, gamma = jnp.zeros(shape), jnp.zeros(())
    output = jnp.zeros((*shape, prediction.outputs))
    return eqx.filter_eval_shape(prediction, output, z, gamma, VariancePreserving())


def _check_kernels(recipe: Recipe, estimate: Estimate) -> None:
    """Raises RecipeError if a kernel of the recipe needs more than the estimate has."""
    choices = (recipe.objective.kernel, recipe.sampling.sampler, recipe.likelihood.estimator)
    for kernel in (one for choice in choices for one in choice.nested() if one.kind == "kernel"):
        eqx.filter_eval_shape(kernel.build(), estimate, estimate.x_hat, jnp.zeros(()), -jnp.ones(()))


def _distribution(recipe: Recipe) -> dict[str, AbstractDistribution]:
    """What the images are drawn from, by the name of the parameter; nothing where the prediction does not ask."""
    prediction = recipe.model.prediction
    if "distribution" not in prediction.component.injected:
        return {}
    if (found := recipe.data.build().distribution) is None:
        raise RecipeError(
            f"prediction {prediction.name}: the data's distribution is not known; use data gaussian or mixture."
        )
    return {"distribution": found}


def build_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """The recipe's optimiser, told how many steps it will make."""
    optimizer = recipe.optimizer.build(steps=recipe.training.steps)
    return interior_apart(optimizer) if recipe.objective.schedule_loss == "variance" else optimizer


def build_learning_rate(recipe: Recipe) -> optax.Schedule | None:
    """The learning rate by the number of updates made before; None for a plugin's optimiser, which alone knows."""
    if recipe.optimizer.component.target is not adamw:
        return None
    keys = {key: recipe.optimizer.params[key] for key in ("learning_rate", "warmup_steps", "decay")}
    return learning_rates(recipe.training.steps, **keys)


def build_update(recipe: Recipe, optimizer: optax.GradientTransformation) -> Update:
    """The recipe's training step."""
    return Update(optimizer, recipe.training.ema, recipe.training.ema_warmup)


def build_objective(recipe: Recipe) -> Objective:
    """The recipe's objective, before its time sampler has learned."""
    choices = recipe.objective
    time_sampler, weighting = choices.time_sampler.build(), choices.weighting.build()
    return Objective(
        time_sampler, weighting, choices.steps, choices.schedule_loss, choices.kernel.build(), choices.grid.build()
    )


def check_objective(recipe: Recipe) -> None:
    """Raises RecipeError if the steps are of no bound, or the schedule's variance is not all that is to change."""
    objective, schedule = build_objective(recipe), recipe.model.schedule.build(key=jax.random.key(0))
    if objective.steps:
        steps_of_bound(objective.grid, schedule, objective.steps)
    if objective.schedule_loss == "variance":
        check_variance(schedule, objective.time_sampler, objective.weighting, steps=objective.steps)


def build_guidance(recipe: Recipe) -> Guidance | None:
    """The labels of samples, if they have any. Raises RecipeError for labels that would not be used."""
    guidance, label = recipe.sampling.guidance, recipe.sampling.label
    network, classes = recipe.model.network, recipe.data.build().classes
    if not guidance and label is None:
        return None
    key, value = ("guidance", f"{guidance:g}") if guidance else ("label", label)
    if not is_told_labels(network):
        raise RecipeError(
            f"sampling.{key} = {value}: network {network.name!r} is not told labels. "
            f"Put it into network labelled, or leave sampling.{key} out."
        )
    if not classes:
        raise RecipeError(f"sampling.{key} = {value}: data {recipe.data.name!r} have no labels. Leave it out.")
    if label is not None and label >= classes:
        raise RecipeError(f"sampling.label = {label}: expected 0 to {classes - 1}.")
    if not guidance:
        raise RecipeError(
            f"sampling.label = {label} with sampling.guidance = 0, by which samples have no labels. "
            "Set sampling.guidance to 1 or more, or leave sampling.label out."
        )
    return Guidance(guidance, classes, label)


def is_told_labels(network: Choice) -> bool:
    """Whether this network, or one in it, reads labels."""
    networks = (one.component for one in network.nested() if one.kind == "network")
    return any("classes" in one.injected and one.target is not Translated for one in networks)  # which only hands on


def check_schedule(recipe: Recipe) -> None:
    """Evaluate the schedule that training starts from. Raises RecipeError or PluginError, which names it."""
    schedule = recipe.model.schedule.build(key=fold_purpose(_init_key(recipe), "schedule"))
    with recipe.model.schedule.component.named("cannot be evaluated"):
        check_increasing(schedule)
        check_ends(schedule)


def build_estimator(recipe: Recipe, levels: int) -> AbstractEstimator[Any]:
    """What `vdmkit likelihood` measures by; as the model was trained, where the recipe does not say otherwise.

    Raises:
        RecipeError: it refuses its settings, or images of so many levels.
    """
    steps, kernel, grid = (getattr(recipe.objective, name) for name in ("steps", "kernel", "grid"))
    choice = recipe.likelihood.estimator
    estimator = choice.build(trained_steps=steps, trained_kernel=kernel, trained_grid=grid)
    estimator.check_levels(levels)
    return estimator


def check_rest(recipe: Recipe) -> None:
    """Build what is used after training, so that a refusal does not come after hours. Raises RecipeError."""
    recipe.sampling.sampler.build()
    _check_sampling_grid(recipe)
    build_guidance(recipe)


def _check_sampling_grid(recipe: Recipe) -> None:
    """A grid of given steps is asked for others."""
    grid, settings = recipe.sampling.grid.build(), recipe.sampling
    latents = settings.steps - (settings.end == "image")  # whose last step is not of the grid
    if latents:
        grid(recipe.model.schedule.build(key=jax.random.key(0)), latents)


def _init_key(recipe: Recipe) -> PRNGKeyArray:
    return fold_purpose(jax.random.key(recipe.seed), "init")


def build_state(recipe: Recipe, level_counts: Int[Array, "h w c v"]) -> TrainState:
    """The state that training starts from; a function of the recipe and the training set alone."""
    model = build_model(recipe, level_counts, key=_init_key(recipe))
    return initial_state(model, build_optimizer(recipe), build_objective(recipe))


def state_like(recipe: Recipe, shape: tuple[int, int, int], levels: int) -> TrainState:
    """The shapes and types of the recipe's state, without allocating it: what a checkpoint is read into."""
    counts = jax.ShapeDtypeStruct((*shape, levels), jnp.int32)
    return eqx.filter_eval_shape(build_state, recipe, counts)


def check_without_data(recipe: Recipe, levels: int) -> None:
    """Build the model for images of two made-up sizes, without allocating it.

    Raises:
        VdmkitError: both are refused in the same words, which therefore are not about the size of the images.
    """
    refusals = [_refusal(recipe, shape, levels) for shape in _MADE_UP_SHAPES]
    if refusals[0] and str(refusals[0]) == str(refusals[1]):
        raise refusals[0]


def _refusal(recipe: Recipe, shape: tuple[int, int, int], levels: int) -> VdmkitError | None:
    try:
        state_like(recipe, shape, levels)
    except VdmkitError as error:
        return error
    return None


def count_parameters(recipe: Recipe, source: AbstractSource) -> int:
    """Number of trained parameters, without allocating them."""
    model = state_like(recipe, source.shape, source.levels).ema
    return sum(leaf.size for leaf in jax.tree.leaves(model))
