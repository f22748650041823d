# SPDX-License-Identifier: Apache-2.0
"""Mixtures of normal distributions, one per level, on a grid of cells. Weights, means and tables are integers."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32, Int64, Integer

from vdmkit_codec.compression._fused import Whitening, pop_fused
from vdmkit_codec.compression._gaussian_law import FINE, counts, in_few_lengths, reach
from vdmkit_codec.compression._law import ESCAPE, AbstractLaw, escape
from vdmkit_codec.compression._mixture_cdf import Window, ends_of, find_in, in_blocks
from vdmkit_codec.compression._rans import SLOTS, Stack, Symbols


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
