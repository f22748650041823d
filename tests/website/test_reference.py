# SPDX-License-Identifier: Apache-2.0
"""The reference is complete: every component and every public name has an entry."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from vdmkit.recipes import shipped_recipes
from vdmkit.registry import kinds, registry
from website.docstrings import markdown
from website.names import modules

MODULES = modules()
COMPONENTS = [component for kind in kinds() for component in registry(kind).components.values()]


def entries(page: Path) -> dict[str, str]:
    """Returns the text below each second-level heading."""
    return dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_an_entry(pages, module):
    """Every public name has an entry in the reference and a docstring."""
    found = entries(pages / "reference/python" / f"{module}.md")
    for name in getattr(importlib.import_module(module), "__all__", ()):
        value = getattr(importlib.import_module(module), name)
        if name != "__version__":
            assert name in found
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"


def test_all_modules_are_there():
    """False if the test above had no cases."""
    assert {"vdmkit.schedules", "vdmkit.networks", "vdmkit.likelihood"} < set(MODULES)


def test_a_class_shows_fields_methods_and_source(pages):
    """A reader could not see how a class is made, what it does, or where it is."""
    shown = entries(pages / "reference/python/vdmkit.losses.md")["Objective"]
    for part in ("class Objective(eqx.Module)", "weighting: AbstractWeighting", "[source]", "Returns"):
        assert part in shown
    assert re.search(r"\[source\]\(\.\./\.\./source/vdmkit/losses/training_loss\.py\.md#__codelineno-0-\d+\)", shown)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda one: f"{one.kind}-{one.name}")
def test_components_have_a_page(pages, component):
    """Every component has a page with all its recipe keys."""
    page = (pages / "reference" / component.kind / f"{component.name}.md").read_text()
    assert page.startswith(f"# {component.kind} {component.name}\n")
    assert all(f"\n| `{key}` | " in page for key in component.parameters)
    of_kind = (pages / "reference" / component.kind / "index.md").read_text()
    assert f"| [`{component.name}`]({component.name}.md) | " in of_kind


def test_commands_and_recipes_are_listed(pages):
    """Every command and recipe is part of the reference."""
    commands = entries(pages / "reference/commands.md")
    assert {"run", "likelihood", "new-plugin", "compress"} < commands.keys()
    assert "--precision <float>" in commands["likelihood"]
    recipes = (pages / "reference/recipes.md").read_text()
    assert all(f"| [`{name}`](" in recipes for name in shipped_recipes())


def test_docstrings_become_lists():
    """Arguments become a list, and formulas are escaped."""
    text = "A * b_c <d>.\n\n    x = 1\n\nArgs:\n    a: First,\n        continued.\n    b: `k_*`.\n\nMore."
    shown = "A &#42; b&#95;c &#60;d>.\n\n    x = 1\n\n\n**Args**\n\n- `a`: First,\n    continued.\n"
    assert markdown(text) == shown + "- `b`: `k_*`.\n\nMore."
