# SPDX-License-Identifier: Apache-2.0
"""Distributions over integers as intervals of slots, which the stack pushes and pops."""

import abc

import numpy as np
from jaxtyping import Float, Int64, UInt64

from vdmkit_codec.compression._rans import PRECISION, SLOTS, Stack, Symbols

ESCAPE = 64  # slots (2^-20) for values beyond the window, in distributions that are not drawn from
_ESCAPES_AT = SLOTS - ESCAPE
OUT = np.int64(-(2**62))
_HALF = 16  # bits of half an escaped symbol
_OFFSET = 2**31


class AbstractLaw(abc.ABC):
    """The distributions of n values, each with its own."""

    @abc.abstractmethod
    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        """Returns start and frequency of each value's symbol, or those of the escape."""

    @abc.abstractmethod
    def pop_from(self, stack: Stack, count: int, keys: UInt64[np.ndarray, " n"] | None = None) -> Symbols:
        """Pops the symbols of the first `count` values; `OUT` is the escape's. See `Stack.pop` for `keys`."""


def escape(starts: Symbols, frequencies: Symbols, out: np.ndarray) -> tuple[Symbols, Symbols]:
    """Replaces start and frequency by those of the escape where `out` is true."""
    return np.where(out, _ESCAPES_AT, starts), np.where(out, ESCAPE, frequencies)


def push(stack: Stack, law: AbstractLaw, symbols: Symbols) -> Float[np.ndarray, " n"]:
    """Pushes symbols, which `pop` returns. Returns the bits of each value."""
    starts, frequencies = law.intervals(symbols)
    out = starts == _ESCAPES_AT
    written = symbols[out] + _OFFSET
    for half in (written & 0xFFFF, written >> _HALF):
        stack.push(half << (PRECISION - _HALF), np.full_like(half, 1 << (PRECISION - _HALF)))
    stack.push(starts, frequencies)
    return PRECISION - np.log2(frequencies) + 2 * _HALF * out


def pop(stack: Stack, law: AbstractLaw, count: int) -> Int64[np.ndarray, " count"]:
    """Pops and returns the symbols that `push` pushed."""
    symbols = law.pop_from(stack, count)
    out = symbols == OUT
    high, low = (stack.pop(int(out.sum()), _find_half) for _ in range(2))
    symbols[out] = (high << _HALF) + low - _OFFSET
    return symbols


def _find_half(rows: slice, slots: UInt64[np.ndarray, " n"]) -> tuple[Symbols, Symbols, Symbols]:
    half = slots.astype(np.int64) >> (PRECISION - _HALF)
    return half, half << (PRECISION - _HALF), np.full_like(half, 1 << (PRECISION - _HALF))
