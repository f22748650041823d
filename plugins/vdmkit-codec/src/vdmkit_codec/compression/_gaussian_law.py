# SPDX-License-Identifier: Apache-2.0
"""Normal distributions with one standard deviation on a grid of cells, as a table of integers.

A cell is divided into FINE parts, and the mean is an integer number of parts. Cell k reaches from part (k - 1/2) FINE
to (k + 1/2) FINE.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, Integer, UInt64

from vdmkit_codec.compression._law import ESCAPE, AbstractLaw, escape
from vdmkit_codec.compression._normal import exact_normal_cdf
from vdmkit_codec.compression._rans import SLOTS, Symbols

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

    def at(self, means: Integer[np.ndarray, " n"]) -> "GaussianLaw":
        """Returns the distributions with these means, in parts."""
        return GaussianLaw(self, means)


@dataclass(frozen=True)
class GaussianLaw(AbstractLaw):
    table: GaussianTable
    means: Integer[np.ndarray, " n"]

    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        first, lead = self._frame(self.means)
        cell = symbols - first
        starts, frequencies = self._interval(cell, lead)
        if not self.table.escapes:
            return starts, frequencies
        return escape(symbols, starts, frequencies, (cell < 0) | (cell >= self.table.cells))[1:]

    def find(self, rows: slice, slots: UInt64[np.ndarray, " n"]) -> tuple[Symbols, Symbols, Symbols]:
        first, lead = self._frame(self.means[rows])
        part = np.searchsorted(self.table.cumulative, slots.astype(np.int64), side="right") - 1
        cell = np.clip((part - lead) // FINE, 0, self.table.cells - 1)
        starts, frequencies = self._interval(cell, lead)
        if not self.table.escapes:
            return first + cell, starts, frequencies
        return escape(first + cell, starts, frequencies, slots.astype(np.int64) >= self.table.cumulative[-1])

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
