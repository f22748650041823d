# SPDX-License-Identifier: Apache-2.0
"""Builds estimators of likelihoods and samplers from a recipe."""

from typing import Any

from vdmkit.assembly._model import is_told_labels
from vdmkit.errors import RecipeError
from vdmkit.likelihood import AbstractEstimator, VariationalBound
from vdmkit.recipe import Recipe
from vdmkit.sampling import Guidance, SamplingConfig


def build_estimator(recipe: Recipe, levels: int) -> AbstractEstimator[Any]:
    """Returns the estimator of `vdmkit likelihood`; by default it measures the bound as it was trained.

    Raises:
        RecipeError: the estimator refuses its settings or this number of levels.
    """
    steps, kernel, grid = (getattr(recipe.objective, name) for name in ("steps", "kernel", "grid"))
    choice = recipe.likelihood.estimator
    estimator = choice.build(trained_steps=steps, trained_kernel=kernel, trained_grid=grid)
    estimator.check_levels(levels)
    return estimator


def build_guidance(recipe: Recipe) -> Guidance | None:
    """Returns the labels of samples, or None. Raises RecipeError for labels that would not be used."""
    guidance, label = recipe.sampling.guidance, recipe.sampling.label
    network = recipe.model.network
    if not guidance and label is None:
        return None
    key, value = ("guidance", f"{guidance:g}") if guidance else ("label", label)
    if not is_told_labels(network):
        raise RecipeError(
            f"sampling.{key} = {value}: network {network.name!r} does not use labels. "
            f"Put it into network labelled, or remove sampling.{key}."
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
    """Returns the estimator of `vdmkit run` and `vdmkit evaluate`: the bound as trained, or with other steps."""
    settings, objective = recipe.evaluation, recipe.objective
    trained = objective.steps, objective.kernel, objective.grid
    return VariationalBound(*trained, draws=settings.draws, steps=settings.steps)


def build_sampling(recipe: Recipe) -> SamplingConfig:
    """Returns how the recipe draws samples. Raises RecipeError for labels that would not be used."""
    settings = recipe.sampling
    return SamplingConfig(
        sampler=settings.sampler.build(),
        steps=settings.steps,
        grid=settings.grid.build(),
        guidance=build_guidance(recipe),
        end=settings.end,
        compute=settings.compute,
    )
