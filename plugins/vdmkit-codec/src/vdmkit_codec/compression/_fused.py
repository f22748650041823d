# SPDX-License-Identifier: Apache-2.0
"""Pops thousands of values in one compiled call, and does what `Stack.pop` does with a call for each row of lanes.

A chunk of few images has few lanes, and so many rows. XLA computes with integers, which are exact everywhere.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped, UInt64

from vdmkit_codec.compression._law import ESCAPE, OUT
from vdmkit_codec.compression._rans import PRECISION, SLOTS, Stack, Symbols

_VALUES = 4096  # in a call, so that there is one size to compile for each number of lanes
_MASK, _BITS, _WORD = SLOTS - 1, PRECISION, 32

Find = Callable[..., tuple[Any, Any, Any]]
OfValues = Sequence[Shaped[np.ndarray, "n ..."]]


def pop_fused(
    stack: Stack, find: Find, tables: Any, of_values: OfValues, keys: UInt64[np.ndarray, " n"] | None = None
) -> Symbols:
    """Pops and returns symbols.

    Args:
        stack: The stack.
        find: Maps tables, the arrays of some values and their slots to symbols, starts and frequencies, in JAX.
        tables: Arrays that all values have in common. Each combination of shapes is compiled.
        of_values: Arrays with a row for each value.
        keys: As those of `Stack.pop`.

    Raises:
        CodecError: the stack has too few bits.
    """
    count, lanes = len(of_values[0]), len(stack.heads)
    keys = np.zeros(count, np.uint64) if keys is None else keys & np.uint64(_MASK)
    rows, symbols = max(1, _VALUES // lanes), [np.zeros(0, np.int64)]
    for first in range(0, count, rows * lanes):
        now = min(rows * lanes, count - first)
        given = [_in_rows(array[first : first + now], rows, lanes) for array in (keys, *of_values)]
        with jax.enable_x64(True):
            found = _pop_rows(find, tables, given, np.asarray(now), stack.heads, stack.top(rows * lanes))
            popped, heads, taken = (np.asarray(array) for array in found)
        stack.take(int(taken))
        stack.heads[:] = heads
        symbols.append(popped.ravel()[:now])
    return np.concatenate(symbols)


def or_escape(out: Any, symbol: Any, start: Any, frequency: Any) -> tuple[Any, Any, Any]:
    """Returns what `find` found, and the escape where `out` is true."""
    return jnp.where(out, OUT, symbol), jnp.where(out, SLOTS - ESCAPE, start), jnp.where(out, ESCAPE, frequency)


def _in_rows(array: Shaped[np.ndarray, "n ..."], rows: int, lanes: int) -> Shaped[np.ndarray, "rows lanes ..."]:
    padded = np.zeros((rows * lanes, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded.reshape(rows, lanes, *array.shape[1:])


@partial(jax.jit, static_argnames="find")
def _pop_rows(find: Find, tables: Any, given: list[Any], count: Any, heads: Any, words: Any) -> tuple[Any, Any, Any]:
    """Returns the symbols of all rows, the heads after them and the number of words taken."""
    rows, lanes = given[0].shape

    def pop_row(row: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        symbols, heads, taken = state
        keys, *of_values = (array[row] for array in given)
        there = row * lanes + jnp.arange(lanes) < count
        slots = (heads ^ keys) & _MASK
        symbol, start, frequency = find(tables, *of_values, slots.astype(int))
        x = frequency.astype(jnp.uint64) * (heads >> _BITS) + slots - start.astype(jnp.uint64)
        low = there & (x >> _WORD == 0)
        order = jnp.cumsum(low)
        word = words[len(words) - taken - order[-1] + order - 1].astype(jnp.uint64)
        x = jnp.where(low, (x << _WORD) | word, jnp.where(there, x, heads))
        return symbols.at[row].set(symbol), x, taken + order[-1]

    first = jnp.zeros((rows, lanes), int), heads, jnp.zeros((), int)
    return jax.lax.fori_loop(0, (count + lanes - 1) // lanes, pop_row, first)
