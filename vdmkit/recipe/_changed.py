# SPDX-License-Identifier: Apache-2.0
"""Which keys of a recipe differ from vdmkit's defaults."""

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from vdmkit.recipe._recipe import Recipe
from vdmkit.registry import Choice


def changed_keys(recipe: Recipe) -> set[str]:
    """Returns the dotted keys whose values are not the defaults; keys without default are among them."""
    return set(_changed(recipe, MISSING, ""))


def _changed(value: Any, default: Any, key: str) -> Iterator[str]:
    """Yields the changed keys below `key`. Components and tables without default are compared part by part."""
    if isinstance(value, Choice):
        yield from _of_choice(value, default, key)
    elif is_dataclass(value):
        for one in fields(value):
            of_table = getattr(default, one.name, one.default)
            yield from _changed(getattr(value, one.name), of_table, f"{key}.{one.name}".lstrip("."))
    elif value != default:
        yield key


def _of_choice(choice: Choice, default: Any, key: str) -> Iterator[str]:
    same = isinstance(default, Choice) and default.name == choice.name
    if not same:
        yield f"{key}.name"
    given = default.params if same else {}
    for name, value in choice.params.items():
        found = choice.component.parameters[name].default
        yield from _changed(
            value, given.get(name, MISSING if found is inspect.Parameter.empty else found), f"{key}.{name}"
        )
