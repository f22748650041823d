# SPDX-License-Identifier: Apache-2.0
"""Reads recipes from TOML files or Python values into a checked `Recipe`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from vdmkit.errors import RecipeError
from vdmkit.plugins import broken_packages, copies_in, kept_plugins, load_plugins
from vdmkit.recipes.document import Override, find_recipe, read_document
from vdmkit.recipes.schema import Recipe, differences, flat
from vdmkit.recipes.validation import Reader, toml_text


def load_recipe(
    name: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
    kept: Iterable[str | Path] = (),
) -> Recipe:
    """Reads and checks a recipe. It creates no arrays, and does not load JAX before all files are parsed.

    Args:
        name: The path of a TOML file, or the name of a shipped recipe, such as "digits". A path takes precedence.
            `extends` in the recipe is a path relative to the file, or such a name.
        overrides: `key=value` with a dotted key and a TOML value (or a plain string), which replace values of the
            file.
        plugins: Python files that register components.
        kept: Plugin files that the recipe's run kept; their names take precedence over installed packages.

    Raises:
        UnknownCodeError: a file of `kept` was never allowed or recorded; see `vdmkit.plugins.allow`.
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
    """Returns a recipe to train, the text of its file, and the run folder: `out`, or runs/RECIPE.

    Plugin files of which the folder holds an identical copy are loaded as the run's own. As in `load_recipe`, JAX is
    not loaded before all files are parsed.

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


def as_text(recipe: Mapping[str, Any]) -> str:
    """Returns a recipe as text. Raises RecipeError if it contains values that TOML does not have, such as None."""
    try:
        return tomli_w.dumps(recipe)
    except TypeError as error:
        raise RecipeError(f"train: the recipe is not TOML: {error}. Leave out a key for its default.") from error


def overrides_between(before: Recipe, after: Recipe, *prefixes: str) -> list[str]:
    """Returns `key=value`, as for `--set`, for each key below the prefixes whose value in `after` differs."""
    values = flat(after)
    changed = [key for key in differences(before, after) if key.startswith(prefixes)]
    return [f"{key}={toml_text(values[key])}" for key in changed if key in values]


def as_overrides(overrides: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Returns overrides in the form of `--set`; error messages name them by the Python argument."""
    if isinstance(overrides, str):
        raise RecipeError(f"overrides = {overrides!r}: expected a dict, or a list of key=value.")
    if isinstance(overrides, Mapping):
        return [Override(f"{key}={toml_text(value)}", "overrides") for key, value in overrides.items()]
    return [Override(text, f"overrides, {text!r}") for text in overrides]
