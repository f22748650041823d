# SPDX-License-Identifier: Apache-2.0
"""Checks of a recipe's components before a number is trusted.

The checks are those of `vdmkit.conformance`, on the run's own components, parameters and images.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vdmkit.conformance.checking import Checked, Findings, findings_of, run_checks, threads
from vdmkit.conformance.components import (
    check_augmentation,
    check_grid,
    check_identity,
    check_images,
    check_loads_again,
    check_optimizer,
    check_sampler,
    check_time_sampler,
    check_weighting,
    gammas_between,
)
from vdmkit.conformance.estimators import check_estimator, check_estimator_of_model
from vdmkit.conformance.model import check_derivative_of_model, check_kernel_of_model, checks_of_model, latents_of
from vdmkit.data.sources import AbstractPixels, AbstractSource, Images, Pixels
from vdmkit.devices import precisely
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.importance import ImportanceWeighted
from vdmkit.model import DiffusionModel
from vdmkit.recipes.build import build_estimator, build_optimizer, told_always
from vdmkit.recipes.checks import check_settings
from vdmkit.recipes.schema import Recipe
from vdmkit.registry import Choice, registry
from vdmkit.reverse import AbstractKernel
from vdmkit.schedules import AbstractSchedule, check_increasing, ends_of

_FEW = 16  # training images on which augmentations are checked
_SIDE, _CHANNELS = 2, 3  # of the synthetic images for estimators; an ODE is slow on larger ones
_NO_DERIVATIVE = (VariationalBound, ImportanceWeighted)  # estimators that never differentiate the network


@precisely
def check_model_of_recipe(
    recipe: Recipe, model: DiffusionModel, pixels: Pixels, *, differentiated: bool = False
) -> Findings:
    """Checks schedule, path, prediction, network, observation and, with T steps, kernel on latents of images.

    `differentiated` is whether the number depends on derivatives of the network, as that of an ODE does.
    """
    model = _fetched(model)
    choices, latents = recipe.model, latents_of(model, pixels)
    checks: list[Checked] = [
        (getattr(choices, kind).component, check) for kind, check in checks_of_model(model, latents).items()
    ]
    checks += [
        (kernel.component, lambda kernel=kernel: check_kernel_of_model(kernel.build(), latents))
        for kernel in _kernels(recipe)
    ]
    if differentiated:
        checks.append((choices.network.component, lambda: check_derivative_of_model(model, latents)))
    return run_checks(checks) + _of_exact_likelihood(recipe)


@precisely
def problems_of_kernels(model: DiffusionModel, pixels: Pixels, kernels: Mapping[str, AbstractKernel]) -> dict[str, str]:
    """Returns the problems of kernels on latents of images by name; kernels without problems are omitted."""
    latents = latents_of(_fetched(model), pixels)
    found = {
        name: findings_of(registry("kernel").get(name), lambda kernel=kernel: check_kernel_of_model(kernel, latents))
        for name, kernel in kernels.items()
    }
    return {name: " ".join(findings.problems) for name, findings in found.items() if findings.problems}


def _of_exact_likelihood(recipe: Recipe) -> Findings:
    """Returns a remark if a plugin provides the exact likelihood of its data, which reports print with the model's."""
    component = recipe.data.component
    if component.origin == "vdmkit" or recipe.data.build().distribution is None:
        return Findings()
    return Findings(remarks=(f"It was not checked whether the exact likelihood that {component} gives is right.",))


def _fetched(model: DiffusionModel) -> DiffusionModel:
    """Returns the model on the default device, so that programs compiled before training are reused."""

    def fetched(leaf: Any) -> Any:
        return jax.device_put(np.asarray(leaf)) if isinstance(getattr(leaf, "dtype", None), np.dtype) else leaf

    return jax.tree.map(fetched, model)


def check_measurement_of_recipe(recipe: Recipe, model: DiffusionModel, test: Images) -> Findings:
    """Checks the parts of the recipe's likelihood: the model, the grids of its steps, and the estimator.

    Problems of the estimator are reported only if the other parts have none, because they might be the cause.
    """
    differentiated = not isinstance(build_estimator(recipe, test.levels), _NO_DERIVATIVE)
    grids = _checks_of_grids(_grids_of_measurement(recipe), model.schedule)

    with threads(1) as aside:  # compilation, which dominates, can use a second core
        estimator = aside.submit(check_estimator_of_recipe, recipe, model)
        found = check_model_of_recipe(recipe, model, test.pixels, differentiated=differentiated) + run_checks(grids)
        return found if found.problems else found + estimator.result()


def check_estimator_of_recipe(recipe: Recipe, model: DiffusionModel) -> Findings:
    """Checks the recipe's estimator on synthetic data with known likelihood.

    The check runs on small images with the run's levels, and with the run's shape, schedule and path.
    """
    component, levels = recipe.likelihood.estimator.component, model.observation.levels
    estimator, ends = build_estimator(recipe, levels), ends_of(model.schedule)
    height, width, channels = model.shape
    shape = min(height, _SIDE), min(width, _SIDE), min(channels, _CHANNELS)
    return run_checks(
        [
            (component, lambda: check_estimator(estimator, levels, shape, ends)),
            (component, lambda: check_estimator_of_model(estimator, model)),
        ]
    )


def remarks_on_labels(recipe: Recipe) -> Findings:
    """Returns a remark if the network was always trained with labels, for a measurement without labels."""
    network = told_always(recipe)
    if network is None:
        return Findings()
    remark = (
        f"In training, network {network} was told the label of every image; here it is told none. "
        "`vdmkit likelihood --label data` measures log P(image | label)."
    )
    return Findings(remarks=(remark,))


def check_data_of_recipe(recipe: Recipe, source: AbstractSource, *splits: Images) -> Findings:
    """Checks images against their source and their identity, and that the last split loads again with equal pixels.

    vdmkit's own images are not read if they are not in memory, because their identity was recorded when all were read.
    """
    component = recipe.data.component
    on_disk = component.origin == "vdmkit" and all(isinstance(one.pixels, AbstractPixels) for one in splits)
    check = check_identity if on_disk else check_images
    checks = [(component, lambda images=images: check(source, images)) for images in splits]
    again = [] if on_disk else [(component, lambda: check_loads_again(source, splits[-1]))]
    return run_checks([*checks, *again])


def check_before_training(recipe: Recipe, source: AbstractSource, train: Images, test: Images) -> Findings:
    """Checks the images, and all components other than the model.

    Raises RecipeError or PluginError, as `check_settings`, unless there are other problems.
    """
    found = check_data_of_recipe(recipe, source, train, test) + check_training_of_recipe(recipe, train)
    if not found.problems:
        check_settings(recipe)
    return found


def check_training_of_recipe(recipe: Recipe, train: Images) -> Findings:
    """Checks the components that training and sampling use besides the model."""
    return run_checks(_checks_of_training(recipe, train))


def _checks_of_training(recipe: Recipe, train: Images) -> Iterator[Checked]:
    objective, sampling, few = recipe.objective, recipe.sampling, train.pixels[:_FEW]
    yield objective.time_sampler.component, lambda: check_time_sampler(objective.time_sampler.build())
    schedule = recipe.model.schedule.build(key=jax.random.key(0))
    gammas = gammas_between(schedule)
    yield objective.weighting.component, lambda: check_weighting(objective.weighting.build(), gammas)
    yield recipe.optimizer.component, lambda: check_optimizer(build_optimizer(recipe))
    yield sampling.sampler.component, lambda: check_sampler(sampling.sampler.build())
    for choice in recipe.augmentations:
        yield choice.component, lambda one=choice: check_augmentation(one.build(), few, train.levels)
    yield recipe.model.schedule.component, lambda: check_increasing(schedule)
    yield from _checks_of_grids(_grids_of_training(recipe), schedule)


def _checks_of_grids(grids: Iterable[tuple[Choice, int]], schedule: AbstractSchedule) -> Iterator[Checked]:
    for choice, steps in grids:
        yield choice.component, lambda one=choice, steps=steps: check_grid(one.build(), schedule, steps)


def _grids_of_training(recipe: Recipe) -> Iterator[tuple[Choice, int]]:
    """Yields the grids of training and sampling, with their numbers of steps."""
    objective, sampling = recipe.objective, recipe.sampling
    if objective.steps:
        yield objective.grid, objective.steps
    latents = sampling.steps - (sampling.end == "image")  # the last step, to the image, is not in the grid
    if latents:
        yield sampling.grid, latents


def _grids_of_measurement(recipe: Recipe) -> Iterator[tuple[Choice, int]]:
    """Yields the grids of T-step bounds, of training and of the estimator, with their numbers of steps."""
    estimator, objective = recipe.likelihood.estimator, recipe.objective
    if objective.steps:
        yield objective.grid, objective.steps
    if steps := estimator.params.get("steps") or objective.steps:
        yield from ((one, steps) for one in estimator.nested() if one.kind == "grid")


def _kernels(recipe: Recipe) -> list[Choice]:
    """Returns the kernels of T-step bounds that the recipe trains or measures, each once."""
    trained = [recipe.objective.kernel] if recipe.objective.steps else []
    measured = [one for one in recipe.likelihood.estimator.nested() if one.kind == "kernel"]
    return trained + [one for one in measured if one not in trained]
