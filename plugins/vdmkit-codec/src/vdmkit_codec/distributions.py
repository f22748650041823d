# SPDX-License-Identifier: Apache-2.0
"""Normal distributions over integers and arbitrary ones over levels, as intervals of slots for the stack.

A normal distribution is a table of integers, with one standard deviation. A cell is divided into FINE parts, and the
mean is an integer number of parts; cell k reaches from part (k - 1/2) FINE to (k + 1/2) FINE. The tables are computed
by + - * / alone, whose results IEEE 754 defines exactly: exp in libm and numpy differs between processors, and one
different count in a table corrupts a whole file.
"""

import abc
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int64, Integer

from vdmkit_codec.rans import PRECISION, SLOTS, Stack, Symbols, Whitening, pop_fused, push_fused

WEIGHT_BITS = 24  # cumulative weights of levels rise from 0 to 2^24
ESCAPE = 64  # slots (2^-20) for values beyond the window, in distributions that are not drawn from
_ESCAPES_AT = SLOTS - ESCAPE
OUT = np.int64(-(2**62))
_HALF = 16  # bits of half an escaped symbol
_OFFSET = 2**31


class AbstractLaw(abc.ABC):
    """The distributions of n values, one for each value."""

    @property
    @abc.abstractmethod
    def escapes(self) -> bool:
        """Returns whether the last slots are reserved for values beyond the window."""

    @abc.abstractmethod
    def intervals(self, symbols: Symbols) -> tuple[Symbols, Symbols]:
        """Returns start and frequency of each value's symbol, or of the escape."""

    @abc.abstractmethod
    def pop_from(self, stack: Stack, count: int, keys: Whitening = None) -> Symbols:
        """Pops the symbols of the first `count` values; `OUT` is the escape's. See `pop_fused` for `keys`."""


def escape(starts: Symbols, frequencies: Symbols, out: np.ndarray) -> tuple[Symbols, Symbols]:
    """Replaces start and frequency by the escape's where `out` is true."""
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


FINE = 128  # parts of a cell
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
    """Pads the table with its last number to one of few lengths, so that tables share compiled functions."""
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
        return pop_fused(stack, _find_cell, self.table.tables, self._frame(self.means[:count]), keys)

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


def _find_cell(tables: tuple[Any, Any, Any], first: Any, lead: Any, slots: Any) -> tuple[Any, Any, Any]:
    """Returns the symbols at one slot for each value, with starts and frequencies."""
    cumulative, last, cells = tables
    part = jnp.minimum(jnp.searchsorted(cumulative, slots, side="right", method="scan_unrolled") - 1, last)
    cell = jnp.clip((part - lead) // FINE, 0, cells - 1)
    low = jnp.where(cell <= 0, 0, jnp.clip(cell * FINE + lead, 0, last))
    high = jnp.where(cell >= cells - 1, last, jnp.clip((cell + 1) * FINE + lead, 0, last))
    start = cumulative[low]
    # Without escapes the last count is beyond all slots.
    return or_escape(slots >= cumulative[last], first + cell, start, cumulative[high] - start)


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
        return pop_fused(stack, _find_level, (), (self.cumulative[:count],), keys)


def _edge(weights: Any, symbols: Any, levels: int) -> Any:
    """Returns the first slot of each symbol, given the weight below it."""
    return (weights * (SLOTS - levels) >> WEIGHT_BITS) + symbols


def _find_level(_: tuple[()], cumulative: Any, slots: Any) -> tuple[Any, Any, Any]:
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


_HALVINGS = 10
_TERMS = 14  # terms of exp on [-0.1, 0]; the remainder is below 1e-24
_RISING = 32  # terms that may rise, for |x| <= 8
_SERIES = 200  # terms of the normal distribution function, up to 8 standard deviations


def exact_exp(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Returns exp(x) for |x| up to 100, to a relative accuracy of about 1e-13, the same bits on every machine."""
    size = np.abs(x) / 2**_HALVINGS
    total = np.ones_like(size)
    for n in range(_TERMS, 0, -1):
        total = 1 + size / n * total
    for _ in range(_HALVINGS):
        total = total * total
    return np.where(x < 0, 1 / total, total)


def exact_normal_cdf(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Returns Phi(x) for |x| up to 8, to about 1e-13, the same bits on every machine.

    Phi(x) = 1/2 + phi(x) sum_n x^(2n+1) / (1 3 5 ... (2n+1)) (Marsaglia 2004, Journal of Statistical Software 11, 4).
    """
    term = total = np.asarray(x, np.float64)
    for n in range(1, _SERIES):
        term = term * x * x / (2 * n + 1)
        before, total = total, total + term
        if n > _RISING and np.array_equal(before, total):
            break  # later terms are smaller
    return 0.5 + total * exact_exp(-x * x / 2) * 0.3989422804014327
