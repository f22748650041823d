# SPDX-License-Identifier: Apache-2.0
"""`vdmkit check`: is this recipe valid, and what does it say?"""

from typing import TYPE_CHECKING

import typer

from vdmkit.cli._options import AsJson, Overrides, PluginFiles, RecipeFile

if TYPE_CHECKING:
    from vdmkit.recipe import Choice, Recipe


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
    model = recipe.model
    choices = [recipe.data, *recipe.augmentations]
    choices += [model.schedule, model.path, model.prediction, model.network, model.observation]
    choices += [recipe.objective.times, recipe.objective.weighting, recipe.optimizer, recipe.sampling.sampler]
    lines = [f"  {choice.kind:12}  {_describe(choice)}" for choice in choices]
    training = recipe.training
    return "\n".join([*lines, f"  {'training':12}  {training.steps:,} steps of {training.batch_size} images"])


def _describe(choice: "Choice") -> str:
    from vdmkit.recipe import toml_text

    return " ".join([choice.name, *(f"{key}={toml_text(value)}" for key, value in choice.params.items())])
