# SPDX-License-Identifier: Apache-2.0
"""A stack of bits: range asymmetric numeral systems (Duda 2013, arXiv 1311.2540) in lanes that share one tail of words.

A symbol is an interval [start, start + frequency) of 2^26 slots, which `_fused` pushes and pops.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer, UInt32, UInt64

from vdmkit.errors import CodecError

PRECISION = 26
SLOTS = 1 << PRECISION
_WORD, _LOW = np.uint64(32), np.uint64(2**32 - 1)

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
    return (keystream(seed, 0, lanes) & _LOW) | (np.uint64(1) << _WORD)


def seed_words(seed: int, first: int, count: int) -> UInt32[np.ndarray, " count"]:
    """Returns the words below the bottom of the stack, from the top down."""
    return (keystream(seed ^ 0x5EED, first, count) >> _WORD).astype(np.uint32)


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

    def put(self, words: UInt32[np.ndarray, " n"]) -> None:
        """Appends words to the tail."""
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
