# SPDX-License-Identifier: Apache-2.0
"""Reference pages from the registry: a page for each kind, each component, and vdmkit's recipes and commands."""

import inspect
import sys
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from vdmkit.cli.app import app
from vdmkit.plugins import load_plugins
from vdmkit.recipes import shipped_recipes
from vdmkit.recipes.document import recipe_summary
from vdmkit.recipes.validation import toml_text, type_name
from vdmkit.registry import Choice, Component, Registry, kinds, registry
from website.docstrings import escaped, markdown
from website.pages import Site, line_of


def write_components(site: Site) -> list[str]:
    """Writes the pages of all kinds and components; returns those of the kinds."""
    load_plugins()
    for kind in kinds():
        site.write(f"reference/{kind}/index.md", _kind(registry(kind)))
        for component in registry(kind).components.values():
            site.write(f"reference/{kind}/{component.name}.md", _component(site, component))
    return [f"reference/{kind}/index.md" for kind in kinds()]


def write_recipes(site: Site) -> str:
    """Writes the page of the recipes that come with vdmkit; returns it."""
    page = "reference/recipes.md"
    rows = [
        f"| [`{name}`]({site.link_to(page, Path(path).resolve())}) | {escaped(recipe_summary(path))} |"
        for name, path in shipped_recipes().items()
    ]
    head = ["# Recipes", "", "`vdmkit run NAME` trains one; `vdmkit list recipe` prints this list.", ""]
    site.write(page, "\n".join([*head, "| name | |", "|---|---|", *rows]) + "\n")
    return page


def write_commands(site: Site) -> str:
    """Writes the page of the commands with their options; returns it."""
    group: Any = typer.main.get_command(app)
    parts = ["# Commands", "`vdmkit COMMAND --help` prints these texts."]
    for name in group.list_commands(None):
        inner = getattr(group.get_command(None, name), "commands", {"": None})
        parts += [_help(*[name, word] if word else [name]) for word in inner]
    site.write("reference/commands.md", "\n\n".join(parts) + "\n")
    return "reference/commands.md"


def _kind(kind: Registry) -> str:
    head = [f"# {kind.kind}", "", f"{escaped(kind.summary)}.", ""]
    if kind.interface:
        module = ".".join(kind.interface.__module__.split(".")[:2])
        name = kind.interface.__name__
        head += [f"The interface is [`{name}`](../python/{module}.md#{name.lower()}).", ""]
    if kind.injectable:
        head += ["vdmkit supplies positional parameters of these names: " + _code(*kind.injectable) + ".", ""]
    rows = [
        f"| [`{name}`]({name}.md) | {escaped(one.summary)} | {one.origin} |"
        for name, one in sorted(kind.components.items())
    ]
    return "\n".join([*head, "| name | | from |", "|---|---|---|", *rows]) + "\n"


def _component(site: Site, component: Component) -> str:
    page = f"reference/{component.kind}/{component.name}.md"
    path = Path(str(sys.modules[component.target.__module__].__file__)).resolve()
    line = line_of(path, component.target.__name__)
    source = f"[source]({site.link_to(page, path, line)}) of {component.origin} | [all of this kind](index.md)"
    parts = [f"# {component.kind} {component.name}", markdown(inspect.getdoc(component.target) or ""), _keys(component)]
    if component.injected:
        parts.append(f"vdmkit supplies {_code(*component.injected)}.")
    return "\n\n".join([*parts, source]) + "\n"


def _keys(component: Component) -> str:
    """Returns the recipe keys as a table."""
    if not component.parameters:
        return "It has no recipe keys."
    rows = [
        f"| `{name}` | {escaped(type_name(one.annotation))} | {_default(one)} |"
        for name, one in component.parameters.items()
    ]
    return "\n".join(["| recipe key | type | default |", "|---|---|---|", *rows])


def _default(parameter: inspect.Parameter) -> str:
    value: Any = parameter.default
    if value is parameter.empty:
        return "required"
    return "" if value is None else f"`{value.name if isinstance(value, Choice) else toml_text(value)}`"


def _help(*words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], prog_name="vdmkit", terminal_width=78)
    return f"## {' '.join(words)}\n\n```\n{done.output.strip()}\n```"


def _code(*names: str) -> str:
    return ", ".join(f"`{name}`" for name in names)
