# SPDX-License-Identifier: Apache-2.0
"""The recipe that an importer makes of a configuration."""

import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from vdmkit.errors import CheckpointError, VdmkitError, in_one_line
from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.io import writing
from vdmkit.recipes.loading import load_recipe
from vdmkit.recipes.schema import Recipe

_CIFAR10 = {"name": "cifar10"}


@dataclass(frozen=True)
class Described:
    """A recipe, parsed and as text, the shape and levels of its images, and what the user should know."""

    recipe: Recipe
    text: str
    shape: tuple[int, int, int]
    remarks: list[str]
    levels: int = 256


def described(
    importer: AbstractImporter,
    config: Config,
    source: str,
    overrides: Sequence[str] = (),
    plugins: Iterable[Path] = (),
) -> Described:
    """Returns the recipe of a configuration; its first line says the `source`.

    Raises:
        CheckpointError: the configuration cannot be built.
        RecipeError: the recipe is not valid.
    """
    tables, shape = _tables(importer, config)
    remarks = [*importer.remarks(config), *_with_data(tables, shape, {one.partition("=")[0] for one in overrides})]
    text = f"# Imported from {source}.\n" + tomli_w.dumps(tables)
    return Described(_parse(text, overrides, plugins), text, shape, remarks)


def _tables(importer: AbstractImporter, config: Config) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """Returns the recipe and the images' shape. Raises CheckpointError whatever the configuration holds."""
    try:
        tables, shape = importer.recipe(config), importer.shape(config)
    except VdmkitError:
        raise
    except Exception as error:
        raise CheckpointError(f"the configuration cannot be read: {in_one_line(error)}. Correct it.") from error
    if min(shape) < 1:
        raise CheckpointError(f"the configuration describes images of {_size(shape)}. Correct its size and channels.")
    return tables, shape


def _with_data(tables: dict[str, Any], shape: tuple[int, int, int], given: Collection[str]) -> list[str]:
    """Replaces CIFAR-10 by a file in tables whose model is of other images; says what is to do if it is not given."""
    labels = tables["model"]["network"].get("labels", 0)
    if tables["data"] != _CIFAR10 or (shape == (32, 32, 3) and labels in (0, 10)):
        return []
    tables["data"] = {"name": "npz", "path": "images.npz"}
    size = _size(shape) + (f", of {labels} classes" if labels else "")
    remarks = []
    if not {"data", "data.path", "data.name"} & set(given):
        remarks += [f"Its images are {size}, not CIFAR-10: put them into images.npz, or --set data.path or data.name."]
    if labels and not {"data", "data.classes"} & set(given):
        wanted = f"import it with --set data.classes={labels} and arrays train_labels and test_labels in the file"
        remarks += [f"To train on, or measure images given their labels, {wanted}."]
    return remarks


def _size(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def _parse(text: str, overrides: Sequence[str], plugins: Iterable[Path]) -> Recipe:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "recipe.toml"
        with writing(path):
            path.write_text(text)
        return load_recipe(path, overrides, plugins)
