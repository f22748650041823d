# SPDX-License-Identifier: Apache-2.0
"""Recipes and overrides that are given as Python values."""

from collections.abc import Iterable, Mapping
from typing import Any

import tomli_w

from vdmkit.errors import RecipeError
from vdmkit.recipe._document import Override
from vdmkit.recipe._dump import differences, flat
from vdmkit.recipe._recipe import Recipe
from vdmkit.recipe._values import toml_text


def as_text(recipe: Mapping[str, Any]) -> str:
    """Returns a recipe as text. Raises RecipeError if it holds what TOML does not know, such as None."""
    try:
        return tomli_w.dumps(recipe)
    except TypeError as error:
        raise RecipeError(f"train: the recipe is not TOML: {error}. Leave out a key for its default.") from error


def overrides_between(before: Recipe, after: Recipe, *prefixes: str) -> list[str]:
    """Returns `key=value` for each key below the prefixes in which `after` differs, as `--set` takes them."""
    values = flat(after)
    changed = [key for key in differences(before, after) if key.startswith(prefixes)]
    return [f"{key}={toml_text(values[key])}" for key in changed if key in values]


def as_overrides(overrides: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Returns overrides in the form of `--set`; messages call them by the name of the argument."""
    if isinstance(overrides, str):
        raise RecipeError(f"overrides = {overrides!r}: expected a dict, or a list of key=value.")
    if isinstance(overrides, Mapping):
        return [Override(f"{key}={toml_text(value)}", "overrides") for key, value in overrides.items()]
    return [Override(text, f"overrides, {text!r}") for text in overrides]
