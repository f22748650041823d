# SPDX-License-Identifier: Apache-2.0
"""Distributions over integers as intervals of slots, which the stack pushes and pops."""

import abc
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int64

from vdmkit_codec.compression._fused import Whitening, pop_fused, push_fused
from vdmkit_codec.compression._rans import PRECISION, SLOTS, Stack, Symbols

ESCAPE = 64  # slots (2^-20) for values beyond the window, in distributions that are not drawn from
_ESCAPES_AT = SLOTS - ESCAPE
OUT = np.int64(-(2**62))
_HALF = 16  # bits of half an escaped symbol
_OFFSET = 2**31


class AbstractLaw(abc.ABC):
    """The distributions of n values, each with its own."""

    @property
    @abc.abstractmethod
    def escapes(self) -> bool:
        """Returns whether the last slots are those of values beyond the window."""

    @abc.abstractmethod
    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        """Returns start and frequency of each value's symbol, or those of the escape."""

    @abc.abstractmethod
    def pop_from(self, stack: Stack, count: int, keys: Whitening = None) -> Symbols:
        """Pops the symbols of the first `count` values; `OUT` is the escape's. See `pop_fused` for `keys`."""


def escape(starts: Symbols, frequencies: Symbols, out: np.ndarray) -> tuple[Symbols, Symbols]:
    """Replaces start and frequency by those of the escape where `out` is true."""
    return np.where(out, _ESCAPES_AT, starts), np.where(out, ESCAPE, frequencies)


def or_escape(out: Any, symbol: Any, start: Any, frequency: Any) -> tuple[Any, Any, Any]:
    """Returns what a `find` of `pop_fused` found, and the escape where `out` is true."""
    return jnp.where(out, OUT, symbol), jnp.where(out, _ESCAPES_AT, start), jnp.where(out, ESCAPE, frequency)


def push(stack: Stack, law: AbstractLaw, symbols: Symbols) -> Float[np.ndarray, " n"]:
    """Pushes symbols, which `pop` returns. Returns the bits of each value."""
    starts, frequencies = law.intervals(symbols)
    out = (starts == _ESCAPES_AT) & law.escapes
    if out.any():
        written = symbols[out] + _OFFSET
        for half in (written & 0xFFFF, written >> _HALF):
            push_fused(stack, half << (PRECISION - _HALF), np.full_like(half, 1 << (PRECISION - _HALF)))
    push_fused(stack, starts, frequencies)
    return PRECISION - np.log2(frequencies) + 2 * _HALF * out


def pop(stack: Stack, law: AbstractLaw, count: int) -> Int64[np.ndarray, " count"]:
    """Pops and returns the symbols that `push` pushed."""
    symbols = law.pop_from(stack, count)
    out = symbols == OUT
    if out.any():
        high, low = (pop_fused(stack, _find_half, (), (np.zeros(out.sum()),)) for _ in range(2))
        symbols[out] = (high << _HALF) + low - _OFFSET
    return symbols


def _find_half(_: tuple[()], __: Any, slots: Any) -> tuple[Any, Any, Any]:
    half = slots >> (PRECISION - _HALF)
    return half, half << (PRECISION - _HALF), jnp.full_like(half, 1 << (PRECISION - _HALF))
