# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint file may claim. A file beyond a limit is refused before memory is taken for it."""

from vdmkit.io import MAX_DIMENSIONS, MAX_OPERATIONS


class Malformed(Exception):
    """Says what is wrong with a file, in words that follow its name and a colon."""


class Budget:
    """The work that a file may still ask for. Nested pickles share it with the one that holds them."""

    def __init__(self, n_bytes: int) -> None:
        self.operations, self._bytes = MAX_OPERATIONS, n_bytes

    def spend_bytes(self, n_bytes: int) -> None:
        """Counts bytes that are read or copied a second time, which no genuine file does more than once."""
        self._bytes -= n_bytes
        if self._bytes < 0:
            raise Malformed("its pickles copy more bytes than it has")


def shown(text: str) -> str:
    """Returns a name from a file as a message can print it: at most 200 characters, none that controls a terminal."""
    kept = text if len(text) <= 200 else text[:200] + "..."
    return kept if kept.isprintable() else ascii(kept)[1:-1]


def product(sizes: tuple[int, ...]) -> int:
    """Returns the number of elements of a shape. Raises Malformed if it is not a shape of whole numbers."""
    if len(sizes) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise Malformed("a tensor's shape is not one")
    result = 1
    for size in sizes:
        result *= size
    return result
