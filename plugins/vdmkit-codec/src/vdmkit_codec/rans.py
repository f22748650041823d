# SPDX-License-Identifier: Apache-2.0
"""Range asymmetric numeral systems (Duda 2013, arXiv 1311.2540): a stack of bits in lanes that share one tail of words.

A symbol is an interval [start, start + frequency) of 2^26 slots. Thousands of values are pushed or popped in one
compiled call. They go through the lanes in rows; pops take rows in order and pushes in reverse, so that each undoes the
other. XLA computes with integers, which are exact everywhere.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer, Shaped, UInt32, UInt64

from vdmkit.errors import CodecError

PRECISION = 26
SLOTS = 1 << PRECISION
_VALUES = 4096  # in a compiled call, so that there is one size to compile for each number of lanes
_MASK, _BITS, _WORD, _FREE = SLOTS - 1, PRECISION, 32, 64 - PRECISION

Symbols = Integer[np.ndarray, " n"]


def keystream(seed: int, first: int, count: int) -> UInt64[np.ndarray, " count"]:
    """Returns pseudo-random numbers first, first + 1, ... of a seed (splitmix64: Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x += np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def first_heads(seed: int, lanes: int) -> UInt64[np.ndarray, " lanes"]:
    """Returns the initial heads: random, because zeros would pop improbable first symbols."""
    return (keystream(seed, 0, lanes) & np.uint64(2**32 - 1)) | np.uint64(1 << _WORD)


def seed_words(seed: int, first: int, count: int) -> UInt32[np.ndarray, " count"]:
    """Returns the words below the bottom of the stack, from the top down."""
    return (keystream(seed ^ 0x5EED, first, count) >> np.uint64(_WORD)).astype(np.uint32)


@dataclass
class Stack:
    """Heads in [2^32, 2^64), one of each lane, above a tail of 32-bit words.

    Args:
        heads: Heads of the lanes.
        tail: Buffer of the tail's words.
        length: Number of words in the tail.
        seed: Seed of the words that an empty stack is filled with; None if it must not run empty.
        seeded: Number of these words that were taken.
    """

    heads: UInt64[np.ndarray, " lanes"]
    tail: UInt32[np.ndarray, " capacity"] = field(default_factory=lambda: np.zeros(1024, np.uint32))
    length: int = 0
    seed: int | None = None
    seeded: int = 0

    def copy(self) -> "Stack":
        return Stack(self.heads.copy(), self.tail.copy(), self.length, self.seed, self.seeded)

    @property
    def words(self) -> UInt32[np.ndarray, " length"]:
        return self.tail[: self.length]

    @property
    def bits(self) -> float:
        """Returns the bits on the stack, without the random words that it was filled with."""
        return float(np.log2(self.heads.astype(float)).sum()) + 32 * (self.length - self.seeded)

    def put(self, words: UInt32[np.ndarray, " n"]) -> None:
        """Appends words to the tail."""
        if self.length + len(words) > len(self.tail):
            self.tail = np.append(self.tail, np.zeros(len(self.tail) + len(words), np.uint32))
        self.tail[self.length : self.length + len(words)] = words
        self.length += len(words)

    def top(self, count: int) -> UInt32[np.ndarray, " count"]:
        """Returns the words that `take` would return, with zeros for words that are missing without a seed."""
        missing = max(count - self.length, 0)
        there = self.tail[self.length - count + missing : self.length]
        if not missing:
            return there
        below = np.zeros(missing, np.uint32) if self.seed is None else seed_words(self.seed, self.seeded, missing)
        return np.concatenate([below[::-1], there])

    def take(self, count: int) -> UInt32[np.ndarray, " count"]:
        """Takes the last words from the tail. Raises CodecError if they are missing and there is no seed."""
        missing = max(count - self.length, 0)
        if missing and self.seed is None:
            raise CodecError("the coder needs more bits than the chunk holds")
        words = self.top(count)
        self.length, self.seeded = self.length - count + missing, self.seeded + missing
        return words


Find = Callable[..., tuple[Any, Any, Any]]
Whitening = UInt64[np.ndarray, " n"] | None
OfValues = Sequence[Shaped[np.ndarray, "n ..."]]


def pop_fused(stack: Stack, find: Find, tables: Any, of_values: OfValues, keys: Whitening = None) -> Symbols:
    """Pops and returns symbols.

    Args:
        stack: The stack.
        find: Maps tables, the arrays of some values and their slots to symbols, starts and frequencies, in JAX.
        tables: Arrays that all values have in common. Each combination of shapes is compiled.
        of_values: Arrays with a row for each value.
        keys: Whiten the slots: without them, a pop right after a push depends on where in its interval the pushed
            symbol was.

    Raises:
        CodecError: the stack has too few bits.
    """
    symbols = [np.zeros(0, np.int64)]
    for now, given in _blocks(len(stack.heads), _low_bits(keys, len(of_values[0])), *of_values):
        with jax.enable_x64(True):
            found = _pop_rows(find, tables, given, np.asarray(now), stack.heads, stack.top(given[0].size))
            popped, heads, taken = (np.asarray(array) for array in found)
        stack.take(int(taken))
        stack.heads[:] = heads
        symbols.append(popped.ravel()[:now])
    return np.concatenate(symbols)


def push_fused(stack: Stack, starts: Symbols, frequencies: Symbols, keys: Whitening = None) -> None:
    """Pushes values, which `pop_fused` with the same `keys` pops."""
    intervals = starts.astype(np.uint64), frequencies.astype(np.uint64)
    for now, given in reversed(list(_blocks(len(stack.heads), _low_bits(keys, len(starts)), *intervals))):
        with jax.enable_x64(True):
            heads, words, full = map(np.asarray, _push_rows(*given, np.asarray(now), stack.heads))
        stack.put(words[full])
        stack.heads[:] = heads


def _low_bits(keys: Whitening, count: int) -> Symbols:
    return np.zeros(count, np.uint64) if keys is None else keys & np.uint64(_MASK)


def _blocks(lanes: int, *of_values: Shaped[np.ndarray, "n ..."]) -> Iterator[tuple[int, list[Any]]]:
    """Yields the number of values and the arrays of each call, in rows of lanes."""
    count, rows = len(of_values[0]), max(1, _VALUES // lanes)
    for first in range(0, count, rows * lanes):
        now = min(rows * lanes, count - first)
        yield now, [_in_rows(array[first : first + now], rows, lanes) for array in of_values]


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


@jax.jit
def _push_rows(keys: Any, starts: Any, frequencies: Any, count: Any, heads: Any) -> tuple[Any, Any, Any]:
    """Returns the heads after all rows, the lower words of heads in the order of rows, and which of them are put."""
    rows, lanes = starts.shape
    used = (count + lanes - 1) // lanes

    def push_row(i: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        heads, words, put = state
        row = used - 1 - i
        there, frequency = row * lanes + jnp.arange(lanes) < count, frequencies[row]
        full = there & (heads >> _FREE >= frequency)  # never for a frequency of all slots, whose push changes nothing
        x = jnp.where(full, heads >> _WORD, heads)
        quotient = x // frequency
        x = (quotient << _BITS) + (x - quotient * frequency) + starts[row]
        return jnp.where(there, x ^ keys[row], heads), words.at[i].set(heads.astype(jnp.uint32)), put.at[i].set(full)

    first = heads, jnp.zeros((rows, lanes), jnp.uint32), jnp.zeros((rows, lanes), bool)
    return jax.lax.fori_loop(0, used, push_row, first)
