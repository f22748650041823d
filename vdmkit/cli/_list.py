# SPDX-License-Identifier: Apache-2.0
"""`vdmkit list`: lists the components that recipes can choose, and vdmkit's own recipes."""

import inspect
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdmkit.cli._options import AsJson, PluginFiles

if TYPE_CHECKING:
    from vdmkit.registry import Component, Registry


def list_components(
    plugins: PluginFiles,
    kind: Annotated[str | None, typer.Argument(help="Only this kind, such as schedule; or `recipe`.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the components that a recipe can choose; `list recipe` lists the recipes that come with vdmkit."""
    if kind == "recipe":
        return _list_recipes(as_json)
    from vdmkit.registry import kinds, load_plugins, registry

    load_plugins(plugins)
    registries = [registry(name) for name in ([kind] if kind else kinds())]
    components = [component for one in registries for _, component in sorted(one.components.items())]
    if as_json:
        typer.echo(json.dumps([_facts(component) for component in components], indent=2, default=str))
    else:
        typer.echo("\n\n".join(_describe(one) for one in registries))


def _list_recipes(as_json: bool) -> None:
    from vdmkit.recipe import recipe_summary, shipped_recipes

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
    """Returns the facts on a parameter; one without a default has no key "default"."""
    from vdmkit.recipe import type_name
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
    from vdmkit.recipe import toml_text

    default = facts.get("default")
    if default is not None:
        return f"{facts['name']}: {facts['type']} = {toml_text(default)}"
    return f"{facts['name']}: {facts['type']}  ({'optional' if 'default' in facts else 'required'})"
