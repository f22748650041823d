# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments of the Python API: a wrong one is named, before it can give a wrong number."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from vdmkit.errors import RecipeError
from vdmkit.limits import MAX_COUNT


def check_instance(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    """Raises RecipeError unless the value of argument `name` is a `kind`, or None if that is `optional`."""
    if isinstance(value, kind) or (optional and value is None):
        return
    found = f"the class {value.__name__}: write {value.__name__}()" if isinstance(value, type) else _short(value)
    raise RecipeError(f"{name}: expected {_kind(kind)}, found {found}.")


def check_integer(name: str, value: object, *, least: int = 1, most: int = MAX_COUNT) -> None:
    """Raises RecipeError unless the value of argument `name` is an integer from `least` to `most`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (whole and least <= int(value) <= most):  # type: ignore[arg-type]
        raise RecipeError(f"{name}: expected an integer from {least:,} to {most:,}, found {_short(value)}.")


def check_not_negative(name: str, value: Any) -> None:
    """Raises RecipeError unless the value of argument `name` is a finite number, at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < math.inf:
        raise RecipeError(f"{name}: expected a finite number >= 0, found {_short(value)}.")


def check_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raises RecipeError unless the value of argument `name` is one of the `known` words."""
    if not isinstance(value, str) or value not in known:
        raise RecipeError(f"{name}: expected {' or '.join(map(repr, known))}, found {_short(value)}.")


def _kind(kind: type) -> str:
    name = kind.__name__.removeprefix("Abstract")
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name} of vdmkit"


def _short(value: object) -> str:
    """Describes a value in a few words; an array or a model would fill the screen."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"an object of type {type(value).__name__}"
