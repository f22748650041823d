# SPDX-License-Identifier: Apache-2.0
"""Recipes that name components of vdmkit only."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from vdmkit.recipe._dump import flat
from vdmkit.recipe._recipe import Recipe
from vdmkit.registry import Choice


def text_if_own(recipe: Recipe) -> str | None:
    """Returns all values of the recipe as text, or None if one of its components is a plugin's.

    What vdmkit's own components do follows from their values; a plugin's may depend on anything.
    """
    own = all(one.component.origin == "vdmkit" for one in _choices(recipe))
    return repr(sorted(flat(recipe).items())) if own else None


def _choices(value: Any) -> Iterator[Choice]:
    if isinstance(value, Choice):
        yield from value.nested()
    elif is_dataclass(value):
        for field in fields(value):
            yield from _choices(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _choices(part)
