# SPDX-License-Identifier: Apache-2.0
"""Arbitrary distributions over a few symbols."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt64

from vdmkit_codec.compression._law import AbstractLaw
from vdmkit_codec.compression._mixture_cdf import WEIGHT_BITS
from vdmkit_codec.compression._rans import SLOTS, Stack, Symbols


@dataclass(frozen=True)
class LevelsLaw(AbstractLaw):
    """Symbols 0 .. V-1; `cumulative` weights rise from 0 to 2^24. Every symbol has at least one slot."""

    cumulative: Integer[np.ndarray, "n v_plus_1"]

    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        return self._interval(slice(0, len(symbols)), symbols)

    def pop_from(self, stack: Stack, count: int, keys: UInt64[np.ndarray, " n"] | None = None) -> Symbols:
        return stack.pop(count, self.find, keys)

    def find(self, rows: slice, slots: UInt64[np.ndarray, " n"]) -> tuple[Symbols, Symbols, Symbols]:
        """Returns the symbols at one slot for each value in `rows`, with starts and frequencies."""
        edges = self._edge(rows, np.arange(1, self.cumulative.shape[1]))
        symbols = (edges <= slots.astype(np.int64)[:, None]).sum(1)
        return symbols, *self._interval(rows, symbols)

    def _interval(self, rows: slice, symbols: Symbols) -> tuple[Symbols, Symbols]:
        low, high = (self._edge(rows, symbols[:, None] + side)[:, 0] for side in (0, 1))
        return low, high - low

    def _edge(self, rows: slice, symbols: Integer[np.ndarray, "..."]) -> Integer[np.ndarray, "n m"]:
        """Returns the first slot of symbols, which are given for each value or for all."""
        weights = self.cumulative[rows]
        symbols = np.broadcast_to(symbols, (len(weights), symbols.shape[-1]))
        at = np.take_along_axis(weights, symbols, axis=1).astype(np.int64)
        return (at * (SLOTS - weights.shape[1] + 1) >> WEIGHT_BITS) + symbols


def even(count: int, levels: int) -> LevelsLaw:
    """Returns uniform distributions over the levels, for `count` values."""
    row = (np.arange(levels + 1) << WEIGHT_BITS) // levels
    return LevelsLaw(np.broadcast_to(row, (count, levels + 1)))


def mostly_zero(count: int, symbols: int) -> LevelsLaw:
    """Returns distributions concentrated at 0, for `count` values; other symbols take 20 bits."""
    row = np.append(0, (1 << WEIGHT_BITS) - 16 * np.arange(symbols - 1, -1, -1))
    return LevelsLaw(np.broadcast_to(row, (count, symbols + 1)))
