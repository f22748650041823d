# SPDX-License-Identifier: Apache-2.0
"""`vdmkit check`: is this recipe valid, and what does it say?"""

import functools
from typing import TYPE_CHECKING

import typer

from vdmkit.cli._options import AsJson, Overrides, PluginFiles, RecipeFile

if TYPE_CHECKING:
    from vdmkit.recipe import Recipe


def check(recipe: RecipeFile, overrides: Overrides, plugins: PluginFiles, as_json: AsJson = False) -> None:
    """Check a recipe without training, and show what it resolves to."""
    from vdmkit.recipe import load_recipe, resolved

    checked = load_recipe(recipe, overrides, plugins)
    if as_json:
        import json

        typer.echo(json.dumps(resolved(checked), indent=2))
    else:
        typer.echo(f"{recipe} is valid.\n" + _summary(checked))


def _summary(recipe: "Recipe") -> str:
    from vdmkit.likelihood import describe_steps
    from vdmkit.recipe import one_line
    from vdmkit.run import drawn_by

    model, training, drawn = recipe.model, recipe.training, drawn_by(recipe)
    choices = [recipe.data, *recipe.augmentations]
    choices += [model.schedule, model.path, model.prediction, model.network, model.observation]
    choices += [recipe.objective.times, recipe.objective.weighting, recipe.optimizer]
    facts = [(choice.kind, one_line(choice)) for choice in choices]
    facts += [] if recipe.augmentations else [("augmentation", "none")]
    steps_of = functools.partial(describe_steps, kernel=recipe.objective.kernel, grid=recipe.objective.grid)
    facts += [("objective", steps_of(recipe.objective.steps))]
    facts += [("training", f"{training.steps:,} steps of {training.batch_size} images")]
    facts += [("evaluation", f"{recipe.evaluation.draws} draws an image, {steps_of(recipe.evaluation_steps)}")]
    facts += [("estimator", one_line(recipe.likelihood.estimator))]
    facts += [("sampler", drawn.sampler), ("grid", drawn.grid), ("sampling", drawn.settings)]
    facts += [("parameters", _parameter_count(recipe))]
    return "\n".join(f"  {name:12}  {text}" for name, text in facts)


def _parameter_count(recipe: "Recipe") -> str:
    """Makes the model's shapes, and so finds values that no component can be built with."""
    from vdmkit.assembly import build_estimator, check_objective, check_rest, check_schedule, count_parameters
    from vdmkit.errors import DataError

    check_schedule(recipe)
    check_objective(recipe)
    check_rest(recipe)
    try:
        source = recipe.data.build()
        build_estimator(recipe, source.levels)
        return f"{count_parameters(recipe, source):,}"
    except DataError as error:  # the shape of the images comes from files that need not be here
        return f"unknown: {error}"
