# SPDX-License-Identifier: Apache-2.0
"""Mixtures of normal laws, one of each level, on a grid of cells. Weights, means and tables are integers.

The distribution function at the lower edge of cell j of the window, in slots, is

    F(j) = (sum_k w_k G(edge_j - m_k)) / 2^24 + j

G of the common standard deviation reaches 2^26 less the slots that j and the escape take; the w_k sum to 2^24.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt64

from vdmkit.compression._gaussian_law import FINE, counts, window
from vdmkit.compression._law import ESCAPE, AbstractLaw, escape
from vdmkit.compression._rans import SLOTS, Symbols

WEIGHT_BITS = 24
_BLOCK = 4096  # values at a time: 256 levels of each are 8 MB


@dataclass(frozen=True)
class MixtureTable:
    """Levels whose means lie `offsets` parts from where the law is put, with a standard deviation of `sd` cells."""

    sd: float
    offsets: Int64[np.ndarray, " v"]
    normal: Int64[np.ndarray, " parts"] = field(init=False, repr=False)
    means: Int64[np.ndarray, " v"] = field(init=False, repr=False)  # from that of the first level
    cells: int = field(init=False)
    near: int = field(init=False)  # levels that are summed at a point: those whose windows hold it, or all

    def __post_init__(self) -> None:
        half, offsets = window(self.sd) * FINE, self.offsets
        cells = -(-int(offsets[-1] - offsets[0] + 2 * half) // FINE)
        object.__setattr__(self, "means", offsets - offsets[0])
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "normal", counts(self.sd, SLOTS - ESCAPE - cells))
        reach = np.searchsorted(offsets, offsets + 2 * half + 1) - np.arange(len(offsets))
        few = 4 * reach.max() < len(offsets)  # to look which ones takes as long as four levels
        object.__setattr__(self, "near", int(reach.max()) if few else len(offsets))

    def at(self, places: Integer[np.ndarray, " n"], cumulative: Int32[np.ndarray, "n v_plus_1"]) -> "MixtureLaw":
        """The laws at these places, in parts; `cumulative` weights rise from 0 to 2^24."""
        return MixtureLaw(self, places, cumulative)


_Levels = tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n near"], Int64[np.ndarray, "n near"]]


@dataclass(frozen=True)
class MixtureLaw(AbstractLaw):
    table: MixtureTable
    places: Integer[np.ndarray, " n"]
    cumulative: Int32[np.ndarray, "n v_plus_1"]

    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        parts = [slice(first, first + _BLOCK) for first in range(0, max(1, len(symbols)), _BLOCK)]
        starts, frequencies = zip(*(self._rows(rows)._intervals(symbols[rows]) for rows in parts), strict=True)
        return np.concatenate(starts), np.concatenate(frequencies)

    def find(self, rows: slice, slots: UInt64[np.ndarray, " n"]) -> tuple[Symbols, Symbols, Symbols]:
        return self._rows(rows)._find(slots.astype(np.int64))

    def _rows(self, rows: slice) -> "MixtureLaw":
        return MixtureLaw(self.table, self.places[rows], self.cumulative[rows])

    def _intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        cell = symbols - self._frame[0]
        starts = self._below(cell)
        frequencies = self._below(cell + 1) - starts
        return escape(symbols, starts, frequencies, (cell < 0) | (cell >= self.table.cells))[1:]

    def _find(self, slots: Int64[np.ndarray, " n"]) -> tuple[Symbols, Symbols, Symbols]:
        """By halving: F(low) <= slot < F(high)."""
        low, high = np.zeros_like(slots), np.full_like(slots, self.table.cells)
        starts, ends = np.zeros_like(slots), np.full_like(slots, SLOTS - ESCAPE)
        for _ in range(self.table.cells.bit_length()):
            middle = (low + high) >> 1
            below = self._below(middle)
            left = slots < below
            high, ends = np.where(left, middle, high), np.where(left, below, ends)
            low, starts = np.where(left, low, middle), np.where(left, starts, below)
        return escape(self._frame[0] + low, starts, ends - starts, slots >= SLOTS - ESCAPE)

    @cached_property
    def _frame(self) -> tuple[Symbols, Symbols]:
        """The first cell of the window, and at which part of the window its lower edge lies."""
        half = window(self.table.sd) * FINE
        before = self.places + FINE // 2 + int(self.table.offsets[0]) - half
        first = -(-before // FINE)
        return first, first * FINE - before

    def _below(self, cell: Symbols) -> Symbols:
        """F at the lower edges of cells, whose outer ones reach to infinity."""
        table = self.table
        parts = cell * FINE + self._frame[1]
        whole, weights, offsets = self._all if table.near == len(table.offsets) else self._near(parts)
        normal = table.normal.take(parts[:, None] - offsets, mode="clip")
        total = whole * table.normal[-1] + np.einsum("ij,ij->i", weights, normal)
        inner = (total >> WEIGHT_BITS) + cell
        return np.where(cell <= 0, 0, np.where(cell >= table.cells, SLOTS - ESCAPE, inner))

    @cached_property
    def _all(self) -> _Levels:
        return np.zeros(1, np.int64), np.diff(self.cumulative).astype(np.int64), self.table.means[None]

    def _near(self, parts: Symbols) -> _Levels:
        """The weight that counts whole, and the levels whose windows may hold these points."""
        table = self.table
        begin = np.searchsorted(table.means, parts - len(table.normal) + 1, side="right")
        begin = np.minimum(begin, len(table.means) - table.near)[:, None]
        at = self.cumulative.ravel().take(self._row_starts + begin + np.arange(table.near + 1)).astype(np.int64)
        return at[:, 0], at[:, 1:] - at[:, :-1], table.means.take(begin + np.arange(table.near))

    @cached_property
    def _row_starts(self) -> Int64[np.ndarray, "n 1"]:
        return np.arange(len(self.places))[:, None] * self.cumulative.shape[1]
