# SPDX-License-Identifier: Apache-2.0
"""Commands that inspect recipes and installations: `check`, `list`, `bench` and `doctor`.

`check` validates a recipe and shows its resolved values, `list` lists components and shipped recipes, `bench` measures
the training speed of a recipe on this machine, and `doctor` examines the installation.
"""

import functools
import inspect
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdmkit.cli.options import AsJson, Overrides, PluginFiles, RecipeName
from vdmkit.errors import DataError, RecipeError

if TYPE_CHECKING:
    from vdmkit.experiments.speed import Speed
    from vdmkit.recipes.schema import Recipe
    from vdmkit.registry import Component, Registry

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
    from vdmkit.recipes.loading import load_recipe
    from vdmkit.recipes.schema import resolved

    checked = load_recipe(recipe, overrides, plugins)
    findings = _examine(checked)
    if as_json:
        import json

        typer.echo(json.dumps(resolved(checked), indent=2))
    else:
        typer.echo(f"{recipe} {findings.verdict}\n" + _summary(checked, findings.parameters))
    if devices is not None:
        from vdmkit.experiments.speed import memory_of_step

        typer.echo(f"compiling a step for {devices} devices, which takes minutes for a large network", err=True)
        typer.echo(f"  {'memory':12}  {memory_of_step(checked, fsdp=fsdp)}", err=as_json)
    if findings.missing:
        raise DataError(findings.missing)


def _pretend(devices: int) -> None:
    """Makes JAX, before it is imported, divide the CPU into so many devices."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # silences XLA's request to report slow compilations


@dataclass(frozen=True)
class _Findings:
    """Number of parameters, what the first run will download, and why the data cannot be read ("" if they can)."""

    parameters: str
    download: str = ""
    missing: str = ""

    @property
    def verdict(self) -> str:
        if self.missing:
            return "is valid, but its data cannot be read."
        return f"is valid. Its first run downloads the data: {self.download}" if self.download else "is valid."


def _examine(recipe: "Recipe") -> _Findings:
    """Builds the shapes of the model, which finds values that a component refuses."""
    from vdmkit.recipes.build import build_estimator, count_parameters
    from vdmkit.recipes.checks import check_settings, check_without_data

    check_settings(recipe)
    source = recipe.data.build()
    try:
        build_estimator(recipe, source.levels)
        parameters = f"{count_parameters(recipe, source):,}"
    except DataError as error:  # the image shape comes from data files that are absent
        check_without_data(recipe, source.levels)
        return _Findings("unknown without the data", missing=str(error))
    try:
        return _Findings(parameters, download=source.locate())
    except DataError as error:
        return _Findings(parameters, missing=str(error))


def _summary(recipe: "Recipe", parameters: str) -> str:
    from vdmkit.likelihood.estimator import describe_steps
    from vdmkit.recipes.schema import drawn_by, one_line

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


def list_components(
    plugins: PluginFiles,
    kind: Annotated[str | None, typer.Argument(help="Only this kind, such as schedule; or `recipe`.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the components that a recipe can choose; `list recipe` lists the recipes that come with vdmkit."""
    if kind == "recipe":
        return _list_recipes(as_json)
    from vdmkit.plugins import load_plugins
    from vdmkit.registry import kinds, registry

    load_plugins(plugins)
    registries = [registry(name) for name in ([kind] if kind else kinds())]
    components = [component for one in registries for _, component in sorted(one.components.items())]
    if as_json:
        typer.echo(json.dumps([_facts(component) for component in components], indent=2, default=str))
    else:
        typer.echo("\n\n".join(_describe(one) for one in registries))


def _list_recipes(as_json: bool) -> None:
    from vdmkit.recipes.document import recipe_summary, shipped_recipes

    recipes = {name: recipe_summary(path) for name, path in shipped_recipes().items()}
    if as_json:
        facts = [{"kind": "recipe", "name": name, "summary": summary} for name, summary in recipes.items()]
        typer.echo(json.dumps(facts, indent=2))
    else:
        width = max(map(len, recipes), default=0)
        lines = [f"  {name:{width}}  {summary}" for name, summary in recipes.items()]
        typer.echo("\n".join(["recipe: trained by name: `vdmkit run digits`", "", *lines]))


def _facts(component: "Component") -> dict[str, Any]:
    return {
        "kind": component.kind,
        "name": component.name,
        "summary": component.summary,
        "origin": component.origin,
        "parameters": [_parameter_facts(parameter) for parameter in component.parameters.values()],
    }


def _parameter_facts(parameter: inspect.Parameter) -> dict[str, Any]:
    """Returns the facts about a parameter; one without a default has no key "default"."""
    from vdmkit.recipes.validation import type_name
    from vdmkit.registry import Choice

    facts = {"name": parameter.name, "type": type_name(parameter.annotation)}
    if parameter.default is not parameter.empty:
        facts["default"] = parameter.default.name if isinstance(parameter.default, Choice) else parameter.default
    return facts


def _describe(registry: "Registry") -> str:
    lines = [f"{registry.kind}: {registry.summary}"]
    for _, component in sorted(registry.components.items()):
        facts = _facts(component)
        lines += ["", f"  {component.name}  [{component.origin}]", f"    {component.summary}"]
        lines += [f"      {_parameter_line(parameter)}" for parameter in facts["parameters"]]
    return "\n".join(lines)


def _parameter_line(facts: dict[str, Any]) -> str:
    from vdmkit.recipes.validation import toml_text

    default = facts.get("default")
    if default is not None:
        return f"{facts['name']}: {facts['type']} = {toml_text(default)}"
    return f"{facts['name']}: {facts['type']}  ({'optional' if 'default' in facts else 'required'})"


def bench(
    recipe: RecipeName,
    overrides: Overrides,
    plugins: PluginFiles,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="How long steps are repeated.")] = 10,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE.json", help="What an earlier `bench --json` printed.")
    ] = None,
    profile: Annotated[int, typer.Option("--profile", min=0, help="Also write a trace of so many steps.")] = 0,
    folder: Annotated[Path, typer.Option("--trace", metavar="FOLDER", help="The folder of the trace.")] = Path("trace"),
    as_json: AsJson = False,
) -> None:
    """Measure compilation, steps, memory and the wait for data of a recipe's training, on random images."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # measure compilation, not reading from the cache
    from vdmkit.devices import facts_of
    from vdmkit.experiments.speed import measure_speed
    from vdmkit.recipes.loading import load_recipe

    checked, earlier = load_recipe(recipe, overrides, plugins), against and _read(against)
    speed = measure_speed(checked, seconds=seconds, profile=(profile, str(folder)) if profile else None)
    if as_json:
        typer.echo(json.dumps({"recipe": recipe, **facts_of(speed)}, indent=2))
    else:
        typer.echo(_text(recipe, speed))
    if earlier is not None:
        typer.echo(_comparison(speed, earlier), err=as_json)
    if profile:
        typer.echo(f"trace of {profile} steps in {folder}, for TensorBoard or Perfetto", err=True)


def _text(recipe: str, speed: "Speed") -> str:
    step, size = speed.step_seconds, speed.batch_size
    utilisation = "unknown peak" if speed.utilisation is None else f"{speed.utilisation:.1%} of the peak in bfloat16"
    flops = "not counted" if speed.flops is None else f"{speed.flops:.3g} a step, {utilisation}"
    rows = {
        "steps": f"{1 / step.value:.3g} a second (95%: {1 / step.high:.3g} to {1 / step.low:.3g})",
        "images": f"{size / step.value:.4g} a second, {size} a step",
        "compilation": f"{speed.compile_seconds:.1f} s",
        "waiting": f"{speed.waiting:.1%} of the time, for a batch and its way to the device",
        "operations": flops,
        "memory": f"{speed.peak_mib:,.0f} MiB at most",
        "parameters": f"{speed.parameters:,}",
        "computed in": str(speed.arithmetic),
    }
    return "\n".join([recipe, *(f"  {name:<13} {words}" for name, words in rows.items())])


def _read(path: Path) -> Any:
    """Returns the step time of an earlier measurement. Raises DataError if the file does not contain one."""
    from vdmkit.experiments.speed import Median
    from vdmkit.io import read_json

    try:
        return Median(**read_json(path, dict[str, Any])["step_seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not what `vdmkit bench --json` prints ({error}).") from error


def _comparison(speed: "Speed", earlier: Any) -> str:
    ratio = earlier.over(speed.step_seconds)
    return f"{ratio.value:.3f} times as fast as before (95%: {ratio.low:.3f} to {ratio.high:.3f})"


def doctor(as_json: AsJson = False) -> None:
    """Examine software, devices, arithmetic, a short training, the cache folder and plugins; exit 1 if one is wrong."""
    from vdmkit.experiments.doctor import examine

    found = list[dict[str, Any]]()
    for finding in examine():
        found.append(asdict(finding))
        if not as_json:
            lines = finding.found.replace("\n", "\n" + 19 * " ")
            typer.echo(f"{'wrong' if finding.advice else 'ok':7}{finding.name:12}{lines}")
            if finding.advice:
                typer.echo(f"{'':19}{finding.advice}")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    if any(finding["advice"] for finding in found):
        raise typer.Exit(1)
