# SPDX-License-Identifier: Apache-2.0
"""Shared ranges of recipe values, checks of arguments of the Python API, and HTML tables for notebooks.

A range excludes only values that cannot work in any recipe, not unwise ones. Combinations that cannot work are refused
where the component is built. The checks raise an error that names the argument before it can lead to a wrong number.

Importing this module does not load JAX.
"""

import math
import numbers
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MultipleOf

from vdmkit.errors import RecipeError

# Beyond 10,000 steps float32 cannot resolve gamma_t - gamma_s, and the bound is wrong (T = 1e7: 0.12 bpd too low).
MAX_STEPS = 10_000

# exp(-30 / 2) = 3e-7 is five float32 ulps. Beyond it rounding removes the noise (or the image) from z_t.
MAX_GAMMA = 30.0

MAX_COUNT = 2**31 - 1  # JAX counts in int32
MAX_AT_ONCE = 1_000_000  # images; with 2,000 values each, more overflow int32 indices

Gamma = Annotated[float, Ge(-MAX_GAMMA), Le(MAX_GAMMA)]
LogSigma = Annotated[float, Ge(-MAX_GAMMA / 2), Le(MAX_GAMMA / 2)]  # log(sigma / alpha) = gamma / 2
Sigma = Annotated[float, Ge(1e-6), Le(1e6)]  # sigma / alpha
Beta = Annotated[float, Ge(1e-4), Le(60)]  # beta of an SDE at t = 0 or t = 1; gamma_1 is about the mean of both
Width = Annotated[float, Ge(0.01), Le(100)]  # width of a density or a sigmoid in gamma
DataScale = Annotated[float, Ge(1e-3), Le(1e3)]  # standard deviation of data in about [-1, 1]
Share = Annotated[float, Ge(1e-6), Le(1)]
PartialShare = Annotated[float, Ge(1e-6), Lt(1)]
Decay = Annotated[
    float, Ge(0), Le(0.9999999)
]  # weight of the old value in a running average; larger values round to 1 in float32
Tolerance = Annotated[float, Ge(1e-15), Le(0.1)]  # error allowed in one step of an ODE solver
Minutes = Annotated[float, Gt(0), Le(1e6)]

Steps = Annotated[int, Ge(1), Le(MAX_STEPS)]
StepsOrZero = Annotated[int, Ge(0), Le(MAX_STEPS)]
SolverSteps = Annotated[int, Ge(1), Le(MAX_AT_ONCE)]  # upper limit for an adaptive solver
Positive = Annotated[int, Gt(0), Le(MAX_COUNT)]
Count = Annotated[int, Ge(0), Le(MAX_COUNT)]
AtOnce = Annotated[int, Gt(0), Le(MAX_AT_ONCE)]
Draws = Annotated[int, Ge(1), Le(10_000)]
EvenDraws = Annotated[int, Ge(2), Le(2**20), MultipleOf(2)]  # even: two independent estimates of each image
Seed = Annotated[int, Ge(0), Lt(2**32)]


def check_instance(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    """Raises RecipeError unless `value` is an instance of `kind`, or None if it is `optional`."""
    if isinstance(value, kind) or (optional and value is None):
        return
    found = f"the class {value.__name__}: write {value.__name__}()" if isinstance(value, type) else _short(value)
    raise RecipeError(f"{name}: expected {_kind(kind)}, found {found}.")


def check_integer(name: str, value: object, *, least: int = 1, most: int = MAX_COUNT) -> None:
    """Raises RecipeError unless `value` is an integer from `least` to `most`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and least <= int(value) <= most):  # type: ignore[arg-type]
        raise RecipeError(f"{name}: expected an integer from {least:,} to {most:,}, found {_short(value)}.")


def check_not_negative(name: str, value: Any) -> None:
    """Raises RecipeError unless `value` is a finite number >= 0."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 <= float(value) < math.inf:
        raise RecipeError(f"{name}: expected a finite number >= 0, found {_short(value)}.")


def check_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raises RecipeError unless `value` is one of the strings in `known`."""
    if not isinstance(value, str) or value not in known:
        raise RecipeError(f"{name}: expected {' or '.join(map(repr, known))}, found {_short(value)}.")


def _kind(kind: type) -> str:
    name = kind.__name__.removeprefix("Abstract")
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name} of vdmkit"


def _short(value: object) -> str:
    """Describes a value briefly, because the repr of an array or a model would fill the screen."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"an object of type {type(value).__name__}"


def table(headline: str, rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> str:
    """Returns an HTML table with `headline` above it and `columns`, if any, as its header row."""
    lines = [_row(columns, "th")] if columns else []
    lines += [_row(row, "td") for row in rows]
    return f"<div><strong>{escape(headline)}</strong><table>{''.join(lines)}</table></div>"


def _row(cells: Sequence[str], tag: str) -> str:
    left = ' style="text-align: left"'
    return f"<tr>{''.join(f'<{tag}{left}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
