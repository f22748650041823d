# SPDX-License-Identifier: Apache-2.0
"""Arbitrary distributions over a few symbols."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from vdmkit_codec.compression._fused import Whitening, pop_fused
from vdmkit_codec.compression._law import AbstractLaw
from vdmkit_codec.compression._mixture_cdf import WEIGHT_BITS
from vdmkit_codec.compression._rans import SLOTS, Stack, Symbols


@dataclass(frozen=True)
class LevelsLaw(AbstractLaw):
    """Symbols 0 .. V-1; `cumulative` weights rise from 0 to 2^24. Every symbol has at least one slot."""

    cumulative: Integer[np.ndarray, "n v_plus_1"]

    @property
    def escapes(self) -> bool:
        return False

    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        rows, last = np.arange(len(symbols)), self.cumulative.shape[1] - 1
        low, high = (_edge(self.cumulative[rows, at].astype(np.int64), at, last) for at in (symbols, symbols + 1))
        return low, high - low

    def pop_from(self, stack: Stack, count: int, keys: Whitening = None) -> Symbols:
        return pop_fused(stack, _find, (), (self.cumulative[:count],), keys)


def _edge(weights: Any, symbols: Any, levels: int) -> Any:
    """Returns the first slots of symbols below which there are these weights."""
    return (weights * (SLOTS - levels) >> WEIGHT_BITS) + symbols


def _find(_: tuple[()], cumulative: Any, slots: Any) -> tuple[Any, Any, Any]:
    """Returns the symbols at one slot for each value, with starts and frequencies."""
    levels = cumulative.shape[1] - 1
    edges = _edge(cumulative.astype(int), jnp.arange(levels + 1), levels)
    symbol = (edges[:, 1:] <= slots[:, None]).sum(1)
    start, end = (jnp.take_along_axis(edges, symbol[:, None] + side, axis=1)[:, 0] for side in (0, 1))
    return symbol, start, end - start


def even(count: int, levels: int) -> LevelsLaw:
    """Returns uniform distributions over the levels, for `count` values."""
    row = (np.arange(levels + 1) << WEIGHT_BITS) // levels
    return LevelsLaw(np.broadcast_to(row, (count, levels + 1)))


def mostly_zero(count: int, symbols: int) -> LevelsLaw:
    """Returns distributions concentrated at 0, for `count` values; other symbols take 20 bits."""
    row = np.append(0, (1 << WEIGHT_BITS) - 16 * np.arange(symbols - 1, -1, -1))
    return LevelsLaw(np.broadcast_to(row, (count, symbols + 1)))
