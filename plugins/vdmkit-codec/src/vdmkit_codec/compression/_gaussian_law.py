# SPDX-License-Identifier: Apache-2.0
"""Normal distributions with one standard deviation on a grid of cells, as a table of integers.

A cell is divided into FINE parts, and the mean is an integer number of parts. Cell k reaches from part (k - 1/2) FINE
to (k + 1/2) FINE.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int64, Integer

from vdmkit_codec.compression._fused import Whitening, pop_fused
from vdmkit_codec.compression._law import ESCAPE, AbstractLaw, escape, or_escape
from vdmkit_codec.compression._normal import exact_normal_cdf
from vdmkit_codec.compression._rans import SLOTS, Stack, Symbols

FINE = 128
WINDOW = 6.2  # standard deviations, beyond which a normal distribution has probability 6e-10


def reach(sd: float) -> int:
    """Returns the number of cells on either side of the mean, for a standard deviation in cells."""
    return int(np.ceil(WINDOW * sd))


def counts(sd: float, total: int) -> Int64[np.ndarray, " parts"]:
    """Returns Phi at every part of the window, scaled to rise from 0 to `total`."""
    half = reach(sd) * FINE
    values = np.floor(exact_normal_cdf(np.arange(-half, half + 1) / (sd * FINE)) * total).astype(np.int64)
    values[0], values[-1] = 0, total
    return values


def in_few_lengths(table: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " padded"]:
    """Returns the table with more of its last number, so that tables share compiled functions."""
    return np.pad(table, (0, (1 << len(table).bit_length()) - len(table)), mode="edge")


@dataclass(frozen=True)
class GaussianTable:
    """A table for a standard deviation of `sd` cells. Every cell of the window has at least one slot.

    Without escapes the outer cells reach to infinity, as needed to draw from the distribution.
    """

    sd: float
    escapes: bool
    cumulative: Int64[np.ndarray, " parts"] = field(init=False, repr=False)
    cells: int = field(init=False)

    def __post_init__(self) -> None:
        cells = 2 * reach(self.sd)
        floor = np.arange(cells * FINE + 1) // FINE
        total = SLOTS - ESCAPE * self.escapes
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "cumulative", counts(self.sd, total - cells) + floor)

    @cached_property
    def tables(self) -> tuple[Int64[np.ndarray, " padded"], Int64[np.ndarray, ""], Int64[np.ndarray, ""]]:
        """Returns the counts in one of few lengths, the number of the last, and the number of cells."""
        return in_few_lengths(self.cumulative), np.asarray(len(self.cumulative) - 1), np.asarray(self.cells)

    def at(self, means: Integer[np.ndarray, " n"]) -> "GaussianLaw":
        """Returns the distributions with these means, in parts."""
        return GaussianLaw(self, means)


@dataclass(frozen=True)
class GaussianLaw(AbstractLaw):
    table: GaussianTable
    means: Integer[np.ndarray, " n"]

    @property
    def escapes(self) -> bool:
        return self.table.escapes

    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        first, lead = self._frame(self.means)
        cell = symbols - first
        starts, frequencies = self._interval(cell, lead)
        if not self.table.escapes:
            return starts, frequencies
        return escape(starts, frequencies, (cell < 0) | (cell >= self.table.cells))

    def pop_from(self, stack: Stack, count: int, keys: Whitening = None) -> Symbols:
        return pop_fused(stack, _find, self.table.tables, self._frame(self.means[:count]), keys)

    def _frame(self, means: Symbols) -> tuple[Symbols, Symbols]:
        """Returns the first cell of the window, and the part of the window at its lower edge."""
        before = means + FINE // 2 - self.table.cells // 2 * FINE  # parts of cell 0 before the window
        first = -(-before // FINE)
        return first, first * FINE - before

    def _interval(self, cell: Symbols, lead: Symbols) -> tuple[Symbols, Symbols]:
        last = len(self.table.cumulative) - 1
        low = np.where(cell <= 0, 0, np.clip(cell * FINE + lead, 0, last))
        high = np.where(cell >= self.table.cells - 1, last, np.clip((cell + 1) * FINE + lead, 0, last))
        starts = self.table.cumulative[low]
        return starts, self.table.cumulative[high] - starts


def _find(tables: tuple[Any, Any, Any], first: Any, lead: Any, slots: Any) -> tuple[Any, Any, Any]:
    """Returns the symbols at one slot for each value, with starts and frequencies."""
    cumulative, last, cells = tables
    part = jnp.minimum(jnp.searchsorted(cumulative, slots, side="right", method="scan_unrolled") - 1, last)
    cell = jnp.clip((part - lead) // FINE, 0, cells - 1)
    low = jnp.where(cell <= 0, 0, jnp.clip(cell * FINE + lead, 0, last))
    high = jnp.where(cell >= cells - 1, last, jnp.clip((cell + 1) * FINE + lead, 0, last))
    start = cumulative[low]
    # Without escapes the last count is beyond all slots.
    return or_escape(slots >= cumulative[last], first + cell, start, cumulative[high] - start)
