# SPDX-License-Identifier: Apache-2.0
"""Mixtures of normal distributions, one per level, on a grid of cells. Weights, means and tables are integers.

    F(j) = (sum_k w_k G(edge_j - m_k)) / 2^24 + j

is the distribution function at the lower edge of cell j of the window, in slots. G of the common standard deviation
reaches 2^26 minus the slots of j and of the escape; the w_k sum to 2^24. It is computed by XLA, which is exact with
integers and avoids arrays of all levels of all values.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, Int64, Integer, Shaped

from vdmkit_codec.distributions import (
    ESCAPE,
    FINE,
    WEIGHT_BITS,
    AbstractLaw,
    counts,
    escape,
    in_few_lengths,
    or_escape,
    reach,
)
from vdmkit_codec.rans import SLOTS, Find, Stack, Symbols, Whitening, pop_fused

_FEWEST, _MOST = 64, 1024  # values in a block


class Window(NamedTuple):
    """A common standard deviation and means, in parts.

    Args:
        normal: G at every part of its own window, followed by padding.
        end: Number of the last part of that window.
        means: Increasing means of the levels, starting at 0.
        cells: Number of cells from the first mean's window to the last's.
    """

    normal: Int64[np.ndarray, " padded"]
    end: Int64[np.ndarray, ""]
    means: Int64[np.ndarray, " v"]
    cells: Int64[np.ndarray, ""]


def below(window: Window, near: int, cumulative: Any, cell: Any, lead: Any) -> Any:
    """Returns F at the lower edges of cells; the outer cells reach to infinity.

    Args:
        window: The standard deviation and the means.
        near: Largest number of levels whose windows contain the same point.
        cumulative: Cumulative weights of the levels of each value, (n, V + 1).
        cell: Cell of each value, (n,).
        lead: Part of the window at which each value's cell 0 begins, (n,).
    """
    normal, end, means, cells = window
    parts = cell * FINE + lead
    if near < len(means):  # earlier levels count in full, later ones not at all
        begin = jnp.clip(jnp.searchsorted(means, parts - end, side="right"), 0, len(means) - near)
        level = begin[:, None] + jnp.arange(near + 1)
        cumulative, means = jnp.take_along_axis(cumulative, level, axis=1), means[level[:, :-1]]
    weights = cumulative.astype(jnp.int64)
    at = normal[jnp.clip(parts[:, None] - means, 0, end)]
    total = weights[:, 0] * normal[end] + ((weights[:, 1:] - weights[:, :-1]) * at).sum(1)
    inner = (total >> WEIGHT_BITS) + cell
    return jnp.where(cell <= 0, 0, jnp.where(cell >= cells, SLOTS - ESCAPE, inner))


def in_blocks(
    function: Callable[..., Any], window: Window, near: int, *of_values: Shaped[np.ndarray, "n ..."]
) -> list[Symbols]:
    """Calls `ends_of` for any number of values, in blocks of few sizes, each compiled once."""
    count, parts = len(of_values[0]), []
    for first in range(0, count, _MOST):
        rows = np.arange(first, min(first + _MOST, count))
        padded = np.resize(rows, max(_FEWEST, 1 << (len(rows) - 1).bit_length()))
        with jax.enable_x64(True):
            found = function(window, near, *(values[padded] for values in of_values))
            parts.append([np.array(array)[: len(rows)] for array in found])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


@partial(jax.jit, static_argnames="near")
def ends_of(window: Window, near: int, cumulative: Any, lead: Any, cell: Any) -> tuple[Any, Any]:
    """Returns F(cell) and F(cell + 1)."""
    return below(window, near, cumulative, cell, lead), below(window, near, cumulative, cell + 1, lead)


@cache
def find_in(near: int) -> Find:
    """Returns a function that finds symbols in mixtures, whose cell 0 is the symbol `first`."""

    def find(window: Window, cumulative: Any, first: Any, lead: Any, slots: Any) -> tuple[Any, Any, Any]:
        cell, start, end = _search(window, near, cumulative, lead, slots)
        return or_escape(slots >= SLOTS - ESCAPE, first + cell, start, end - start)

    return find


def _search(window: Window, near: int, cumulative: Any, lead: Any, slots: Any) -> tuple[Any, Any, Any]:
    """Returns each value's cell with F(cell) <= slot < F(cell + 1), and these two; the last cell for higher slots."""

    def halve(bracket: Any) -> Any:
        low, high, at_low, at_high = bracket
        middle = (low + high) // 2
        at = below(window, near, cumulative, middle, lead)
        left = slots < at
        return (
            jnp.where(left, low, middle),
            jnp.where(left, middle, high),
            jnp.where(left, at_low, at),
            jnp.where(left, at, at_high),
        )

    zero = jnp.zeros_like(lead)
    bracket = zero, zero + window.cells, zero, zero + (SLOTS - ESCAPE)
    low, _, at_low, at_high = jax.lax.while_loop(lambda b: (b[1] - b[0] > 1).any(), halve, bracket)
    return low, at_low, at_high


@dataclass(frozen=True)
class MixtureTable:
    """A table of levels with means `offsets` parts from a mixture's place and a standard deviation of `sd` cells."""

    sd: float
    offsets: Int64[np.ndarray, " v"]
    window: Window = field(init=False, repr=False)
    near: int = field(init=False)

    def __post_init__(self) -> None:
        half, offsets = reach(self.sd) * FINE, self.offsets
        cells = -(-int(offsets[-1] - offsets[0] + 2 * half) // FINE)
        normal = counts(self.sd, SLOTS - ESCAPE - cells)
        most = (np.searchsorted(offsets, offsets + 2 * half + 1) - np.arange(len(offsets))).max()
        # Powers of 4 or all, so that layers share compiled functions.
        near = 4 ** int(np.ceil(np.log2(most) / 2))
        near = near if 2 * near <= len(offsets) else len(offsets)
        parts = Window(in_few_lengths(normal), np.asarray(2 * half), offsets - offsets[0], np.asarray(cells))
        object.__setattr__(self, "window", parts)
        object.__setattr__(self, "near", near)

    def at(self, places: Integer[np.ndarray, " n"], cumulative: Int32[np.ndarray, "n v_plus_1"]) -> "MixtureLaw":
        """Returns the mixtures at these places, in parts; `cumulative` weights rise from 0 to 2^24."""
        return MixtureLaw(self, places, cumulative)


@dataclass(frozen=True)
class MixtureLaw(AbstractLaw):
    table: MixtureTable
    places: Integer[np.ndarray, " n"]
    cumulative: Int32[np.ndarray, "n v_plus_1"]

    @property
    def escapes(self) -> bool:
        return True

    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        first, lead = self._frame(slice(0, len(symbols)))
        cell = symbols - first
        starts, ends = in_blocks(ends_of, self.table.window, self.table.near, self.cumulative, lead, cell)
        return escape(starts, ends - starts, (cell < 0) | (cell >= self.table.window.cells))

    def pop_from(self, stack: Stack, count: int, keys: Whitening = None) -> Symbols:
        first, lead = self._frame(slice(0, count))
        return pop_fused(
            stack, find_in(self.table.near), self.table.window, (self.cumulative[:count], first, lead), keys
        )

    def _frame(self, rows: slice) -> tuple[Symbols, Symbols]:
        """Returns the first cell of the window, and the part of the window at its lower edge."""
        before = self.places[rows] + FINE // 2 + int(self.table.offsets[0]) - int(self.table.window.end) // 2
        first = -(-before // FINE)
        return first, first * FINE - before
