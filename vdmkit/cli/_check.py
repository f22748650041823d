# SPDX-License-Identifier: Apache-2.0
"""`vdmkit check`: validates a recipe and shows what it resolves to."""

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vdmkit.cli._options import AsJson, Overrides, PluginFiles, RecipeName
from vdmkit.errors import DataError, RecipeError

if TYPE_CHECKING:
    from vdmkit.recipe import Recipe


Devices = Annotated[
    int | None,
    typer.Option("--devices", min=1, help="Also compile a training step for so many, and show the memory of each."),
]
Fsdp = Annotated[bool, typer.Option("--fsdp", help="With --devices: divide the training state over them.")]


def check(
    recipe: RecipeName,
    overrides: Overrides,
    plugins: PluginFiles,
    as_json: AsJson = False,
    devices: Devices = None,
    fsdp: Fsdp = False,
) -> None:
    """Check a recipe and the presence of its data, without training, and show what it resolves to."""
    if fsdp and devices is None:
        raise RecipeError("--fsdp: say for how many, with --devices.")
    if devices is not None:
        _pretend(devices)
    from vdmkit.recipe import load_recipe, resolved

    checked = load_recipe(recipe, overrides, plugins)
    findings = _examine(checked)
    if as_json:
        import json

        typer.echo(json.dumps(resolved(checked), indent=2))
    else:
        typer.echo(f"{recipe} {findings.verdict}\n" + _summary(checked, findings.parameters))
    if devices is not None:
        from vdmkit.memory import memory_of_step

        typer.echo(f"compiling a step for {devices} devices, which takes minutes for a large network", err=True)
        typer.echo(f"  {'memory':12}  {memory_of_step(checked, fsdp=fsdp)}", err=as_json)
    if findings.missing:
        raise DataError(findings.missing)


def _pretend(devices: int) -> None:
    """Divides the CPU into so many devices, before JAX is loaded."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA would ask for a report of a slow compilation


@dataclass(frozen=True)
class _Findings:
    """Number of parameters, what the first run will download, and why the data cannot be read, or ""."""

    parameters: str
    download: str = ""
    missing: str = ""

    @property
    def verdict(self) -> str:
        if self.missing:
            return "is valid, but its data cannot be read."
        return f"is valid. Its first run downloads the data: {self.download}" if self.download else "is valid."


def _examine(recipe: "Recipe") -> _Findings:
    """Builds the model's shapes, which finds values that a component refuses."""
    from vdmkit.assembly import (
        build_estimator,
        check_settings,
        check_without_data,
        count_parameters,
    )

    check_settings(recipe)
    source = recipe.data.build()
    try:
        build_estimator(recipe, source.levels)
        parameters = f"{count_parameters(recipe, source):,}"
    except DataError as error:  # the shape of the images comes from files that are not here
        check_without_data(recipe, source.levels)
        return _Findings("unknown without the data", missing=str(error))
    try:
        return _Findings(parameters, download=source.locate())
    except DataError as error:
        return _Findings(parameters, missing=str(error))


def _summary(recipe: "Recipe", parameters: str) -> str:
    from vdmkit.likelihood import describe_steps
    from vdmkit.recipe import drawn_by, one_line

    model, training, drawn = recipe.model, recipe.training, drawn_by(recipe)
    choices = [recipe.data, *recipe.augmentations]
    choices += [model.schedule, model.path, model.prediction, model.network, model.observation]
    choices += [recipe.objective.time_sampler, recipe.objective.weighting, recipe.optimizer]
    facts = [(choice.kind, one_line(choice)) for choice in choices]
    facts += [] if recipe.augmentations else [("augmentation", "none")]
    steps_of = functools.partial(describe_steps, kernel=recipe.objective.kernel, grid=recipe.objective.grid)
    facts += [("objective", steps_of(recipe.objective.steps))]
    facts += [("training", f"{training.steps:,} steps of {training.batch_size} images")]
    facts += [("evaluation", f"{recipe.evaluation.draws} draws an image, {steps_of(recipe.evaluation_steps)}")]
    facts += [("estimator", one_line(recipe.likelihood.estimator))]
    facts += [("sampler", drawn.sampler), ("grid", drawn.grid), ("sampling", drawn.settings)]
    facts += [("parameters", parameters)]
    return "\n".join(f"  {name:12}  {text}" for name, text in facts)
