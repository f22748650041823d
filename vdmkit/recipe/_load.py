# SPDX-License-Identifier: Apache-2.0
"""From a TOML file to a checked Recipe."""

import os
from collections.abc import Iterable
from pathlib import Path

from vdmkit.errors import RecipeError
from vdmkit.recipe._document import read_document
from vdmkit.recipe._reader import Reader
from vdmkit.recipe._recipe import Recipe
from vdmkit.registry import broken_packages, kept_plugins, load_plugins


def load_recipe(
    name: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
    kept: Iterable[str | Path] = (),
) -> Recipe:
    """Read and check a recipe. No array is made, and JAX is not loaded until all files have parsed.

    Args:
        name: The path of a TOML file, or the name of a recipe that comes with vdmkit, such as "digits". A path wins.
            What the recipe `extends` is a path relative to it, or such a name.
        overrides: `key=value` with a dotted key and a TOML value (or a plain string); they win over the file.
        plugins: Python files that register components.
        kept: Plugin files of the run whose recipe it is. Their names win over those of installed packages.

    Raises:
        RecipeError: everything that is wrong with the recipe, one line each.
        RegistryError: a plugin file does not load, or a name of it is taken.
    """
    document = read_document(name, overrides)
    with kept_plugins(kept):
        load_plugins(plugins)
        reader = Reader(document)
        recipe = reader.read(Recipe, (), document.values)
    if reader.problems:
        raise RecipeError("\n".join([*reader.problems, *_reason(reader)]))
    return recipe


def _reason(reader: Reader) -> list[str]:
    """Why a component may be unknown."""
    broken = broken_packages() if reader.misses_component else []
    names = ", ".join(map(repr, broken))
    return [f"What a plugin package brings is unknown while it does not load: {names}."] if broken else []
