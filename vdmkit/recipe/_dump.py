# SPDX-License-Identifier: Apache-2.0
"""Writes a Recipe as plain values or TOML, including every default."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import tomli_w

from vdmkit.recipe._recipe import Recipe
from vdmkit.recipe._values import toml_text
from vdmkit.registry import Choice


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as TOML values. Keys with value None are omitted, because TOML has no null."""
    return _plain(recipe)


def dump(recipe: Recipe) -> str:
    """Returns TOML text that `load_recipe` reads back to an equal recipe."""
    return tomli_w.dumps(resolved(recipe))


def one_line(choice: Choice) -> str:
    """Returns a component and its keys, such as `ddim eta=0.0`."""

    def text(value: Any) -> str:
        return f"({one_line(value)})" if isinstance(value, Choice) else toml_text(value)

    return " ".join([choice.name, *(f"{key}={text(value)}" for key, value in choice.params.items())])


def differences(a: Recipe, b: Recipe) -> list[str]:
    """Returns the dotted keys in which two recipes differ; empty if they describe the same run."""
    left, right = flat(a), flat(b)
    return [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]


def flat(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe's values by dotted key."""
    return dict(leaves(resolved(recipe)))


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        return _plain({"name": value.name, **value.params})
    if is_dataclass(value):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def leaves(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns the dotted keys and values of nested tables, in their order."""
    found = []
    for key, value in table.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found
