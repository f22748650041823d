# SPDX-License-Identifier: Apache-2.0
"""`vdmkit list` shows every component with its recipe keys."""

import json
import re

import pytest

from vdmkit.plugins import load_plugins
from vdmkit.recipes import shipped_recipes
from vdmkit.registry import kinds, registry

load_plugins()
ALL = [component for kind in kinds() for component in registry(kind).components.values()]


def test_every_kind_and_component_is_listed(run):
    """`vdmkit list` shows every kind and component with its summary."""
    out = run("list").out
    for kind in kinds():
        assert f"{kind}: {registry(kind).summary}" in out
    for component in ALL:
        assert f"  {component.name}  [{component.origin}]\n    {component.summary}" in out


def test_one_kind(run):
    """`vdmkit list KIND` shows the components of that kind and their keys only."""
    out = run("list", "schedule").out
    assert out.startswith("schedule: ")
    assert "      gamma_min: float >= -30, <= 30 = -13.3\n" in out
    assert "optimizer:" not in out


def test_types_are_in_the_words_of_a_recipe(run):
    """Types are shown without Python's typing syntax."""
    out = run("list").out
    assert not re.search(r"Annotated|Literal|Choice|tuple\[|None|= none", out)
    assert "      steps: int >= 0, <= 10000  (optional)\n" in out


def test_an_unknown_kind(run):
    """For a misspelt kind the nearest one is suggested."""
    result = run("list", "shedule")
    assert result.code == 2
    assert 'Did you mean "schedule"?' in result.err


def test_json(run):
    """`vdmkit list --json` contains every component with its parameters."""
    facts = json.loads(run("list", "--json").out)
    assert {(one["kind"], one["name"]) for one in facts} == {(one.kind, one.name) for one in ALL}
    adamw = next(one for one in facts if one["name"] == "adamw")
    assert {"name": "b2", "type": "float >= 0, <= 0.9999999", "default": 0.99} in adamw["parameters"]


@pytest.mark.parametrize("component", ALL, ids=lambda one: f"{one.kind}-{one.name}")
def test_every_component_has_a_summary(component):
    """Every component has a docstring whose first line is a sentence."""
    assert component.summary.endswith(".")
    assert "(*" not in component.summary, "this is the signature that dataclasses write, not a docstring"


def test_recipes(run):
    """`vdmkit list recipe` shows every shipped recipe with its summary."""
    out = run("list", "recipe").out
    facts = json.loads(run("list", "recipe", "--json").out)
    assert [one["name"] for one in facts] == list(shipped_recipes())
    for one in facts:
        assert re.search(rf"^  {one['name']}  +{re.escape(one['summary'])}$", out, re.MULTILINE)
