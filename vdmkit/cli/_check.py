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
    model, training = recipe.model, recipe.training
    choices = [recipe.data, *recipe.augmentations]
    choices += [model.schedule, model.path, model.prediction, model.network, model.observation]
    choices += [recipe.objective.times, recipe.objective.weighting, recipe.optimizer, recipe.sampling.sampler]
    facts = [(choice.kind, _describe(choice)) for choice in choices]
    facts += [("training", f"{training.steps:,} steps of {training.batch_size} images")]
    facts += [("parameters", _parameter_count(recipe))]
    return "\n".join(f"  {name:12}  {text}" for name, text in facts)


def _describe(choice: "Choice") -> str:
    from vdmkit.recipe import Choice, toml_text

    def text(value: object) -> str:
        return f"({_describe(value)})" if isinstance(value, Choice) else toml_text(value)

    return " ".join([choice.name, *(f"{key}={text(value)}" for key, value in choice.params.items())])


def _parameter_count(recipe: "Recipe") -> str:
    """Makes the model's shapes, and so finds values that no component can be built with."""
    from vdmkit.assembly import check_objective, check_rest, count_parameters
    from vdmkit.errors import DataError

    check_objective(recipe)
    try:
        source = recipe.data.build()
        check_rest(recipe, source.levels)
        return f"{count_parameters(recipe, source):,}"
    except DataError as error:  # the shape of the images comes from files that need not be here
        return f"unknown: {error}"
