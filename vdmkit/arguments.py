# SPDX-License-Identifier: Apache-2.0
"""Limits of float32 and int32, and the ranges of recipe values that several modules share. Importing this loads no JAX.

A range refuses what cannot work in any recipe, not what is unwise. Values that only together cannot work are refused
where the component is built.

Checks of the arguments of the Python API: a wrong one is named, before it can give a wrong number.

Tables for notebooks.
"""

import math
import numbers
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MultipleOf

from vdmkit.errors import RecipeError

# Beyond 10,000 steps gamma_t - gamma_s is lost in float32, and the bound with it (T = 1e7: 0.12 bpd too low).
MAX_STEPS = 10_000

# exp(-30 / 2) = 3e-7 is five roundings of float32. At lower gammas z_t has lost its noise, at higher ones its image.
MAX_GAMMA = 30.0

MAX_COUNT = 2**31 - 1  # JAX counts in int32
MAX_AT_ONCE = 1_000_000  # images: the indices of more, of 2,000 values each, do not fit int32

Gamma = Annotated[float, Ge(-MAX_GAMMA), Le(MAX_GAMMA)]
LogSigma = Annotated[float, Ge(-MAX_GAMMA / 2), Le(MAX_GAMMA / 2)]  # log(sigma / alpha) = gamma / 2
Sigma = Annotated[float, Ge(1e-6), Le(1e6)]  # sigma / alpha
Beta = Annotated[float, Ge(1e-4), Le(60)]  # of an SDE, at one of its ends; gamma_1 is about the mean of both
Width = Annotated[float, Ge(0.01), Le(100)]  # width of a density or a sigmoid in gamma
DataScale = Annotated[float, Ge(1e-3), Le(1e3)]  # standard deviation of data that lie near [-1, 1]
Share = Annotated[float, Ge(1e-6), Le(1)]
PartialShare = Annotated[float, Ge(1e-6), Lt(1)]
Decay = Annotated[
    float, Ge(0), Le(0.9999999)
]  # weight of the old value in a running average; above, float32 rounds to 1
Tolerance = Annotated[float, Ge(1e-15), Le(0.1)]  # error allowed in one step of an ODE solver
Minutes = Annotated[float, Gt(0), Le(1e6)]

Steps = Annotated[int, Ge(1), Le(MAX_STEPS)]
StepsOrZero = Annotated[int, Ge(0), Le(MAX_STEPS)]
SolverSteps = Annotated[int, Ge(1), Le(MAX_AT_ONCE)]  # the most that an adaptive solver may take
Positive = Annotated[int, Gt(0), Le(MAX_COUNT)]
Count = Annotated[int, Ge(0), Le(MAX_COUNT)]
AtOnce = Annotated[int, Gt(0), Le(MAX_AT_ONCE)]
Draws = Annotated[int, Ge(1), Le(10_000)]
EvenDraws = Annotated[int, Ge(2), Le(2**20), MultipleOf(2)]  # two independent estimates of each image
Seed = Annotated[int, Ge(0), Lt(2**32)]


def check_instance(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    """Raises RecipeError unless the value of argument `name` is a `kind`, or None if that is `optional`."""
    if isinstance(value, kind) or (optional and value is None):
        return
    found = f"the class {value.__name__}: write {value.__name__}()" if isinstance(value, type) else _short(value)
    raise RecipeError(f"{name}: expected {_kind(kind)}, found {found}.")


def check_integer(name: str, value: object, *, least: int = 1, most: int = MAX_COUNT) -> None:
    """Raises RecipeError unless the value of argument `name` is an integer from `least` to `most`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and least <= int(value) <= most):  # type: ignore[arg-type]
        raise RecipeError(f"{name}: expected an integer from {least:,} to {most:,}, found {_short(value)}.")


def check_not_negative(name: str, value: Any) -> None:
    """Raises RecipeError unless the value of argument `name` is a finite number, at least 0."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 <= float(value) < math.inf:
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


def table(headline: str, rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> str:
    """Returns an HTML table, with its headline above it and the names of `columns`, if given, in its first row."""
    lines = [_row(columns, "th")] if columns else []
    lines += [_row(row, "td") for row in rows]
    return f"<div><strong>{escape(headline)}</strong><table>{''.join(lines)}</table></div>"


def _row(cells: Sequence[str], tag: str) -> str:
    left = ' style="text-align: left"'
    return f"<tr>{''.join(f'<{tag}{left}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
