# SPDX-License-Identifier: Apache-2.0
"""Mixtures of normal laws, one of each level, on a grid of cells. Weights, means and tables are integers.

The distribution function at the lower edge of cell j of the window, in slots, is

    F(j) = (sum_k w_k G(edge_j - m_k)) / 2^24 + j

G of the common standard deviation reaches 2^26 less the slots that j and the escape take; the w_k sum to 2^24.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt64

from vdmkit.compression._gaussian_law import FINE, counts, window
from vdmkit.compression._law import ESCAPE, AbstractLaw, escape
from vdmkit.compression._rans import SLOTS, Symbols

WEIGHT_BITS = 24


@dataclass(frozen=True)
class MixtureTable:
    """Levels whose means lie `offsets` parts from where the law is put, with a standard deviation of `sd` cells."""

    sd: float
    offsets: Int64[np.ndarray, " v"]
    normal: Int64[np.ndarray, " parts"] = field(init=False, repr=False)
    cells: int = field(init=False)
    near: int = field(init=False)  # levels, at most, whose windows hold one point

    def __post_init__(self) -> None:
        half, offsets = window(self.sd) * FINE, self.offsets
        cells = -(-int(offsets[-1] - offsets[0] + 2 * half) // FINE)
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "normal", counts(self.sd, SLOTS - ESCAPE - cells))
        reach = np.searchsorted(offsets, offsets + 2 * half + 1) - np.arange(len(offsets))
        object.__setattr__(self, "near", int(reach.max()))

    def at(self, places: Integer[np.ndarray, " n"], cumulative: Int32[np.ndarray, "n v_plus_1"]) -> "MixtureLaw":
        """The laws at these places, in parts; `cumulative` weights rise from 0 to 2^24."""
        return MixtureLaw(self, places, cumulative)


@dataclass(frozen=True)
class MixtureLaw(AbstractLaw):
    table: MixtureTable
    places: Integer[np.ndarray, " n"]
    cumulative: Int32[np.ndarray, "n v_plus_1"]

    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        rows = slice(0, len(symbols))
        first, lead = self._frame(rows)
        cell = symbols - first
        starts = self._below(rows, cell, lead)
        frequencies = self._below(rows, cell + 1, lead) - starts
        return escape(symbols, starts, frequencies, (cell < 0) | (cell >= self.table.cells))[1:]

    def find(self, rows: slice, slots: UInt64[np.ndarray, " n"]) -> tuple[Symbols, Symbols, Symbols]:
        """By halving: F(low) <= slot < F(high)."""
        first, lead = self._frame(rows)
        slots = slots.astype(np.int64)
        low, high = np.zeros_like(first), np.full_like(first, self.table.cells)
        starts, ends = np.zeros_like(first), np.full_like(first, SLOTS - ESCAPE)
        for _ in range(self.table.cells.bit_length()):
            middle = (low + high) // 2
            below = self._below(rows, middle, lead)
            left = slots < below
            high, ends = np.where(left, middle, high), np.where(left, below, ends)
            low, starts = np.where(left, low, middle), np.where(left, starts, below)
        return escape(first + low, starts, ends - starts, slots >= SLOTS - ESCAPE)

    def _frame(self, rows: slice) -> tuple[Symbols, Symbols]:
        """The first cell of the window, and at which part of the window its lower edge lies."""
        half = window(self.table.sd) * FINE
        before = self.places[rows] + FINE // 2 + int(self.table.offsets[0]) - half
        first = -(-before // FINE)
        return first, first * FINE - before

    def _below(self, rows: slice, cell: Symbols, lead: Symbols) -> Symbols:
        """F at the lower edges of cells, whose outer ones reach to infinity."""
        table = self.table
        parts, last = cell * FINE + lead, len(table.normal) - 1
        offsets = table.offsets - table.offsets[0]
        begin = np.clip(np.searchsorted(offsets, parts - last, side="right"), 0, len(offsets) - table.near)
        level = begin[:, None] + np.arange(table.near)  # those before it count whole, those after it not at all
        at = np.take_along_axis(self.cumulative[rows], np.append(level, begin[:, None] + table.near, axis=1), axis=1)
        at = at.astype(np.int64)
        normal = table.normal[np.clip(parts[:, None] - offsets[level], 0, last)]
        total = at[:, 0] * table.normal[-1] + (np.diff(at, axis=1) * normal).sum(1)
        inner = (total >> WEIGHT_BITS) + cell
        return np.where(cell <= 0, 0, np.where(cell >= table.cells, SLOTS - ESCAPE, inner))
