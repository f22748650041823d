# SPDX-License-Identifier: Apache-2.0
"""Keys of recipes by their last part, for advice to those who look for an option of that name."""

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import get_type_hints

from vdmkit.recipe._recipe import Recipe
from vdmkit.registry import Choice

# keys that most components of a kind have
_OF_COMPONENTS = ("optimizer.learning_rate", "model.network.channels", "likelihood.estimator.draws")
_ALIASES = {"lr": "learning_rate", "width": "channels"}


def keys_called(name: str) -> list[str]:
    """Returns the dotted keys of settings and components whose last part is `name`, such as `training.steps`."""
    name = _ALIASES.get(name, name)
    return [key for key in (*_keys(Recipe, ""), *_OF_COMPONENTS) if key.rpartition(".")[2] == name]


def _keys(settings: type, prefix: str) -> Iterator[str]:
    for name, annotation in get_type_hints(settings).items():
        if is_dataclass(annotation) and isinstance(annotation, type) and annotation is not Choice:
            yield from _keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
