# SPDX-License-Identifier: Apache-2.0
"""Builds everything that a recipe describes: model, optimiser, training state, estimators and samplers.

It also determines the labels on which a measurement is conditioned, and the facts that the health checks of training
need besides its metrics.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray

from vdmkit.data.identity import level_counts
from vdmkit.data.sources import AbstractSource, Images
from vdmkit.decoders import require_even_levels
from vdmkit.errors import DataError, RecipeError
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.estimator import AbstractEstimator
from vdmkit.losses.training_loss import Objective
from vdmkit.model import DiffusionModel
from vdmkit.predictions import AbstractPrediction, Estimate
from vdmkit.process import VariancePreserving
from vdmkit.randomness import fold_purpose
from vdmkit.recipes.schema import Recipe
from vdmkit.registry import Choice
from vdmkit.sampling.sample import SamplingConfig
from vdmkit.sampling.sampler import Guidance
from vdmkit.schedules import gammas_of
from vdmkit.toy_data import AbstractDistribution
from vdmkit.training.health import Facts
from vdmkit.training.optimizers import adamw, interior_apart, learning_rates
from vdmkit.training.step import TrainState, Update, initial_state


def training_counts(recipe: Recipe, train: Images) -> Int[Array, "h w c v"]:
    """Returns how often each level occurs at each training pixel; zeros if the prediction does not use the counts."""
    choice = recipe.model.prediction
    if train.levels and "level_counts" in choice.component.injected:
        return jnp.asarray(level_counts(train))
    return jnp.zeros((*train.pixels.shape[1:], train.levels), jnp.int32)


def build_model(recipe: Recipe, level_counts: Int[Array, "h w c v"], *, key: PRNGKeyArray) -> DiffusionModel:
    """Builds the model before training. `level_counts` is the result of `training_counts`."""
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
    """Returns the number of labels if a network is conditioned on them, and otherwise 0 without reading the data."""
    return recipe.data.build().classes if is_told_labels(recipe.model.network) else 0


def build_prediction(recipe: Recipe, level_counts: Int[Array, "h w c v"]) -> AbstractPrediction:
    """Builds the model's prediction. `level_counts` is the result of `training_counts`."""
    *shape, levels = level_counts.shape
    context = {"shape": tuple(shape), "levels": levels, "level_counts": level_counts, **_distribution(recipe)}
    return recipe.model.prediction.build(**context)


def shapes_of_estimate(prediction: AbstractPrediction, shape: tuple[int, int, int]) -> Estimate:
    """Returns the shapes of the arrays in a prediction's estimate."""
    z, gamma = jnp.zeros(shape), jnp.zeros(())
    output = jnp.zeros((*shape, prediction.outputs))
    return eqx.filter_eval_shape(prediction, output, z, gamma, VariancePreserving())


def _check_kernels(recipe: Recipe, estimate: Estimate) -> None:
    """Raises RecipeError if a reverse kernel of the recipe needs fields that the estimate does not provide."""
    choices = (recipe.objective.kernel, recipe.sampling.sampler, recipe.likelihood.estimator)
    for kernel in (one for choice in choices for one in choice.nested() if one.kind == "kernel"):
        eqx.filter_eval_shape(kernel.build(), estimate, estimate.x_hat, jnp.zeros(()), -jnp.ones(()))


def _distribution(recipe: Recipe) -> dict[str, AbstractDistribution]:
    """Returns the data distribution as a keyword argument; empty if the prediction does not take it."""
    prediction = recipe.model.prediction
    if "distribution" not in prediction.component.injected:
        return {}
    if (found := recipe.data.build().distribution) is None:
        raise RecipeError(
            f"prediction {prediction.name}: the data's distribution is not known; use data gaussian or mixture."
        )
    return {"distribution": found}


def is_told_labels(network: Choice) -> bool:
    """Returns whether this network, or one nested in it, is conditioned on labels."""
    return any(_reads_labels(one) for one in network.nested() if one.kind == "network")


def _reads_labels(network: Choice) -> bool:
    component, number = network.component, network.component.parameters.get("labels")
    if "classes" not in component.injected or not getattr(component.target, "requires_label", True):
        return False
    return number is None or bool(network.params.get("labels", number.default))


def build_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Builds the recipe's optimiser for its number of training steps."""
    optimizer = recipe.optimizer.build(steps=recipe.training.steps)
    return interior_apart(optimizer) if recipe.objective.schedule_loss == "variance" else optimizer


def build_learning_rate(recipe: Recipe) -> optax.Schedule | None:
    """Returns the learning rate as a function of the number of updates, or None for a plugin's optimiser."""
    if recipe.optimizer.component.target is not adamw:
        return None
    keys = {key: recipe.optimizer.params[key] for key in ("learning_rate", "warmup_steps", "decay")}
    return learning_rates(recipe.training.steps, **keys)


def build_update(recipe: Recipe, optimizer: optax.GradientTransformation) -> Update:
    """Builds the recipe's training step."""
    settings = recipe.training
    if settings.batch_size % settings.micro_batches:
        raise RecipeError(
            f"training.micro_batches = {settings.micro_batches} does not divide training.batch_size = "
            f"{settings.batch_size}. Choose a divisor of it."
        )
    of_compute = (settings.compute, settings.matmul_precision, settings.micro_batches)
    return Update(optimizer, settings.ema, settings.ema_warmup, *of_compute)


def build_objective(recipe: Recipe) -> Objective:
    """Builds the recipe's objective, with its time sampler in its initial state."""
    choices = recipe.objective
    time_sampler, weighting = choices.time_sampler.build(), choices.weighting.build()
    return Objective(
        time_sampler, weighting, choices.steps, choices.schedule_loss, choices.kernel.build(), choices.grid.build()
    )


def init_key(recipe: Recipe) -> PRNGKeyArray:
    """Returns the key from which the parameters are initialised."""
    return fold_purpose(jax.random.key(recipe.seed), "init")


def initial_model(recipe: Recipe, train: Images) -> DiffusionModel:
    """Returns the model from which training starts, a function of only the recipe and the training set."""
    return build_model(recipe, training_counts(recipe, train), key=init_key(recipe))


def build_state(recipe: Recipe, level_counts: Int[Array, "h w c v"]) -> TrainState:
    """Builds the initial training state, a function of only the recipe and the training set."""
    model = build_model(recipe, level_counts, key=init_key(recipe))
    return initial_state(model, build_optimizer(recipe), build_objective(recipe))


def state_like(recipe: Recipe, shape: tuple[int, int, int], levels: int) -> TrainState:
    """Returns the shapes and dtypes of the recipe's state, as a template for reading checkpoints.

    Nothing is allocated.
    """
    counts = jax.ShapeDtypeStruct((*shape, levels), jnp.int32)
    return eqx.filter_eval_shape(build_state, recipe, counts)


def count_parameters(recipe: Recipe, source: AbstractSource) -> int:
    """Returns the number of trained parameters without allocating them."""
    model = state_like(recipe, source.shape, source.levels).ema
    return sum(leaf.size for leaf in jax.tree.leaves(model))


def scalars_of(recipe: Recipe, state: TrainState, step: int) -> dict[str, ArrayLike]:
    """Returns gamma_0 and gamma_1 of the schedule, and the learning rate of the last update if it is defined.

    The values may still be computing on the device; donating the state afterwards does not affect them.
    """
    gamma_0, gamma_1 = gammas_of(state.model.schedule, 1)
    ends = {"schedule/gamma_0": gamma_0, "schedule/gamma_1": gamma_1}
    rate = build_learning_rate(recipe)
    return ends if rate is None else {"learning_rate": rate(step - 1), **ends}


def build_estimator(recipe: Recipe, levels: int) -> AbstractEstimator[Any]:
    """Returns the estimator of `vdmkit likelihood`; by default it measures the bound that was trained.

    Raises:
        RecipeError: the estimator does not support its settings or this number of levels.
    """
    steps, kernel, grid = (getattr(recipe.objective, name) for name in ("steps", "kernel", "grid"))
    choice = recipe.likelihood.estimator
    estimator = choice.build(trained_steps=steps, trained_kernel=kernel, trained_grid=grid)
    estimator.check_levels(levels)
    return estimator


def build_guidance(recipe: Recipe) -> Guidance | None:
    """Returns the guidance and labels of samples, or None. Raises RecipeError for labels that would not be used."""
    guidance, label = recipe.sampling.guidance, recipe.sampling.label
    network = recipe.model.network
    if not guidance and label is None:
        return None
    key, value = ("guidance", f"{guidance:g}") if guidance else ("label", label)
    if not is_told_labels(network):
        raise RecipeError(
            f"sampling.{key} = {value}: network {network.name!r} does not use labels. "
            f"Put it into network label_conditioned, or remove sampling.{key}."
        )
    classes = recipe.data.build().classes
    if not classes:
        raise RecipeError(f"sampling.{key} = {value}: data {recipe.data.name!r} have no labels. Remove this key.")
    if label is not None and label >= classes:
        raise RecipeError(f"sampling.label = {label}: expected 0 to {classes - 1}.")
    if not guidance:
        raise RecipeError(
            f"sampling.label = {label} with sampling.guidance = 0, by which samples have no labels. "
            "Set sampling.guidance to 1 or more, or remove sampling.label."
        )
    return Guidance(guidance, classes, label)


def build_evaluator(recipe: Recipe) -> VariationalBound:
    """Returns the estimator of `vdmkit run` and `vdmkit evaluate`: the trained bound, or that of `evaluation.steps`."""
    settings, objective = recipe.evaluation, recipe.objective
    trained = objective.steps, objective.kernel, objective.grid
    return VariationalBound(*trained, draws=settings.draws, steps=settings.steps)


def build_sampling(recipe: Recipe) -> SamplingConfig:
    """Returns the sampling configuration of the recipe. Raises RecipeError for labels that would not be used."""
    settings = recipe.sampling
    return SamplingConfig(
        sampler=settings.sampler.build(),
        steps=settings.steps,
        grid=settings.grid.build(),
        guidance=build_guidance(recipe),
        end=settings.end,
        compute=settings.compute,
    )


def count_labels(recipe: Recipe, option: str) -> int:
    """Returns the network's number of labels. Raises RecipeError, starting with `option`, if it is not conditional."""
    network = recipe.model.network
    if not is_told_labels(network):
        raise RecipeError(
            f"{option}: network {network.name!r} does not use labels. Train one that does, such as network "
            "label_conditioned."
        )
    counts = [one.params["labels"] for one in network.nested() if one.kind == "network" and one.params.get("labels")]
    return recipe.data.build().classes or max(counts, default=0)  # an imported network may be measured on other data


def labels_of(images: Images, option: str) -> Int[np.ndarray, " n"]:
    """Returns the labels of the images. Raises DataError, starting with `option`, if there are none."""
    if images.labels is None:
        raise DataError(f"{option}: {images.identity.name}/{images.identity.split} has no labels.")
    return np.asarray(images.labels)


def told_labels(recipe: Recipe, images: Images) -> Int[np.ndarray, " n"] | None:
    """Returns the label of each image on which the network is conditioned by `likelihood.label`, or None.

    Raises:
        DataError: the images have no labels.
        RecipeError: the network does not use labels, or the label is out of range.
    """
    label = recipe.likelihood.label
    if label is None:
        return None
    option = f"--label {label}"
    count = count_labels(recipe, option)
    if label == "data":
        return labels_of(images, option)
    if label >= count:
        raise RecipeError(f"{option}: expected data, or 0 to {count - 1}.")
    return np.full(len(images.pixels), label)


def told_always(recipe: Recipe) -> str | None:
    """Returns the name of a network that requires a label, without an unconditional state, or None.

    Such networks have a number of labels of their own and no label dropout.
    """
    networks = [one for one in recipe.model.network.nested() if one.kind == "network"]
    return next(
        (one.name for one in networks if one.params.get("labels") and not one.params.get("label_dropout")), None
    )


_IMAGES = 1000  # for their mean square, which enters the prior term times about exp(-gamma_max)


def health_facts(recipe: Recipe, model: DiffusionModel, train: Images) -> Facts:
    """Returns the facts about a training of this recipe that do not depend on the model's parameters."""
    settings, schedule = recipe.training, model.schedule
    images = jnp.asarray(train.pixels[:_IMAGES])
    x = np.asarray(eqx.filter_jit(jax.vmap(model.observation.encode))(images))
    return Facts(
        steps=settings.steps,
        batch_size=settings.batch_size,
        gamma_min=float(schedule.gamma_min),
        gamma_max=float(schedule.gamma_max),
        levels=train.levels,
        spacing=model.observation.spacing if train.levels and not _asks_network(model) else None,
        mean_square=float(np.mean(np.square(x))),
        ema=settings.ema if recipe.evaluation.weights == "ema" else None,
        ema_warmup=settings.ema_warmup,
        always_conditioned=told_always(recipe),
    )


def _asks_network(model: DiffusionModel) -> bool:
    """Returns whether the decoder p(x | z_0) evaluates the network at z_0.

    The estimate of the network may be more informative than z_0 itself.
    """
    asked = []

    def estimate() -> Estimate:
        asked.append(True)
        return model.estimate(jnp.zeros(model.shape), jnp.zeros(()))

    image = jnp.zeros(model.shape, jnp.uint8)
    eqx.filter_eval_shape(
        lambda z: model.observation.log_prob(image, z, jnp.zeros(()), estimate), jnp.zeros(model.shape)
    )
    return bool(asked)
