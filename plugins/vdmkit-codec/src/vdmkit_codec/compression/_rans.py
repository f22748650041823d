# SPDX-License-Identifier: Apache-2.0
"""A stack of bits: range asymmetric numeral systems (Duda 2013, arXiv 1311.2540) in lanes that share one tail of words.

A symbol is an interval [start, start + frequency) of 2^26 slots. All arithmetic is in integers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer, UInt32, UInt64

from vdmkit.errors import CodecError

PRECISION = 26
SLOTS = 1 << PRECISION
_MASK, _WORD, _LOW = np.uint64(SLOTS - 1), np.uint64(32), np.uint64(2**32 - 1)
_ROOM = np.uint64(64 - PRECISION)
_BITS = np.uint64(PRECISION)

Symbols = Integer[np.ndarray, " n"]
Find = Callable[[slice, UInt64[np.ndarray, " n"]], tuple[Symbols, Symbols, Symbols]]


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
    return (keystream(seed, 0, lanes) & _LOW) | (np.uint64(1) << _WORD)


def seed_words(seed: int, first: int, count: int) -> UInt32[np.ndarray, " count"]:
    """Returns the words below the bottom of the stack, from the top down."""
    return (keystream(seed ^ 0x5EED, first, count) >> _WORD).astype(np.uint32)


@dataclass
class Stack:
    """Heads in [2^32, 2^64), one of each lane, above a tail of 32-bit words.

    Values go through the lanes in rows. Pops take rows in order and pushes in reverse, so that each undoes the other.

    Args:
        heads: Heads of the lanes.
        tail: Buffer of the tail's words.
        length: Number of words in the tail.
        seed: Seed of the words that an empty stack is filled with; None if it must not run empty.
        seeded: Number of these words that were taken.
    """

    heads: UInt64[np.ndarray, " lanes"]
    tail: UInt32[np.ndarray, " room"] = field(default_factory=lambda: np.zeros(1024, np.uint32))
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

    def push(self, starts: Symbols, frequencies: Symbols, keys: UInt64[np.ndarray, " n"] | None = None) -> None:
        """Pushes values, which `pop` with the same `keys` takes off again."""
        starts, frequencies = starts.astype(np.uint64), frequencies.astype(np.uint64)
        for rows in reversed(self._rows(len(starts))):
            self._push_row(starts[rows], frequencies[rows])
            self._whiten(rows, keys)

    def pop(self, count: int, find: Find, keys: UInt64[np.ndarray, " n"] | None = None) -> Symbols:
        """Pops `count` symbols. `find` maps rows and their slots to symbols, starts and frequencies.

        `keys` whiten the slots: without them, a pop right after a push depends on where in its interval the pushed
        symbol was.
        """
        symbols = np.zeros(count, np.int64)
        for rows in self._rows(count):
            self._whiten(rows, keys)
            slots = self.heads[: rows.stop - rows.start] & _MASK
            symbols[rows], starts, frequencies = find(rows, slots)
            self._drop_row(slots, starts.astype(np.uint64), frequencies.astype(np.uint64))
        return symbols

    def _rows(self, count: int) -> list[slice]:
        lanes = len(self.heads)
        return [slice(first, min(first + lanes, count)) for first in range(0, count, lanes)]

    def _whiten(self, rows: slice, keys: UInt64[np.ndarray, " n"] | None) -> None:
        """Exchanges the next slots for others; a second call restores them."""
        if keys is not None:
            self.heads[: rows.stop - rows.start] ^= keys[rows] & _MASK

    def _push_row(self, start: UInt64[np.ndarray, " n"], frequency: UInt64[np.ndarray, " n"]) -> None:
        x = self.heads[: len(start)]
        full = x >= frequency << _ROOM
        self._put((x[full] & _LOW).astype(np.uint32))
        x = np.where(full, x >> _WORD, x)
        quotient = x // frequency
        self.heads[: len(start)] = (quotient << _BITS) + (x - quotient * frequency) + start

    def _drop_row(
        self, slots: UInt64[np.ndarray, " n"], start: UInt64[np.ndarray, " n"], frequency: UInt64[np.ndarray, " n"]
    ) -> None:
        x = frequency * (self.heads[: len(slots)] >> _BITS) + slots - start
        low = x < np.uint64(1) << _WORD
        x[low] = (x[low] << _WORD) | self.take(int(low.sum())).astype(np.uint64)
        self.heads[: len(slots)] = x

    def _put(self, words: UInt32[np.ndarray, " n"]) -> None:
        if self.length + len(words) > len(self.tail):
            self.tail = np.append(self.tail, np.zeros(len(self.tail) + len(words), np.uint32))
        self.tail[self.length : self.length + len(words)] = words
        self.length += len(words)

    def top(self, count: int) -> UInt32[np.ndarray, " count"]:
        """Returns the words that `take` would take; zeros for those that are missing and that no seed gives."""
        missing = max(count - self.length, 0)
        there = self.tail[self.length - count + missing : self.length]
        if not missing:
            return there
        below = np.zeros(missing, np.uint32) if self.seed is None else seed_words(self.seed, self.seeded, missing)
        return np.concatenate([below[::-1], there])

    def take(self, count: int) -> UInt32[np.ndarray, " count"]:
        """Takes the last words from the tail. Raises CodecError if they are missing, and no seed gives them."""
        missing = max(count - self.length, 0)
        if missing and self.seed is None:
            raise CodecError("it asks for more bits than it holds")
        words = self.top(count)
        self.length, self.seeded = self.length - count + missing, self.seeded + missing
        return words
