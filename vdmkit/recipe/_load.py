# SPDX-License-Identifier: Apache-2.0
"""Reads a TOML file into a checked Recipe."""

import os
from collections.abc import Iterable
from pathlib import Path

from vdmkit.errors import RecipeError
from vdmkit.recipe._document import read_document
from vdmkit.recipe._names import find_recipe
from vdmkit.recipe._reader import Reader
from vdmkit.recipe._recipe import Recipe
from vdmkit.registry import broken_packages, copies_in, kept_plugins, load_plugins


def load_recipe(
    name: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
    kept: Iterable[str | Path] = (),
) -> Recipe:
    """Reads and checks a recipe. No array is made, and JAX is not loaded until all files have been parsed.

    Args:
        name: The path of a TOML file, or the name of a recipe of vdmkit, such as "digits". A path takes precedence.
            `extends` in the recipe is a path relative to the file, or such a name.
        overrides: `key=value` with a dotted key and a TOML value (or a plain string), which replace values of the
            file.
        plugins: Python files that register components.
        kept: Plugin files that the recipe's run kept; their names take precedence over installed packages.

    Raises:
        UnknownCodeError: a file of `kept` is not known from a run of this user; see `vdmkit.registry.allow`.
        RecipeError: the recipe is invalid; the message lists every problem, one per line.
        RegistryError: a plugin file does not load, or registers a name that is taken.
    """
    document = read_document(name, overrides)
    with kept_plugins(kept):
        load_plugins(plugins)
        reader = Reader(document)
        recipe = reader.read(Recipe, (), document.values)
    if reader.problems:
        raise RecipeError("\n".join([*reader.problems, *_reason(reader)]))
    return recipe


def load_for_run(
    name: str | os.PathLike[str], out: Path | None, overrides: Iterable[str], plugins: Iterable[Path]
) -> tuple[Recipe, str, Path]:
    """Returns a recipe that is to be trained, the text of its file, and the run folder: `out`, or runs/RECIPE.

    Of plugin files that the folder holds a copy of, the components of the run are used. Like `load_recipe` it loads JAX
    only after all files have been parsed.

    Raises:
        RecipeError, RegistryError: as in `load_recipe`.
    """
    file, plugins = find_recipe(name), list(plugins)
    folder = out or Path("runs") / file.stem
    kept = copies_in(folder / "plugins", plugins)
    recipe = load_recipe(file, overrides, [plugin for plugin in plugins if plugin not in kept], kept)
    return recipe, file.read_text(), folder


def _reason(reader: Reader) -> list[str]:
    """Returns a possible reason why a component is unknown."""
    broken = broken_packages() if reader.misses_component else []
    names = ", ".join(map(repr, broken))
    return [f"Components of a plugin package that does not load are unknown: {names}."] if broken else []
