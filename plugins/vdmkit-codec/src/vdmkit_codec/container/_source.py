# SPDX-License-Identifier: Apache-2.0
"""A file that is read by position, with checks of its end; threads may read concurrently."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vdmkit.errors import CodecError
from vdmkit.io import not_a_file

_PIECE = 1 << 20
_ADVICE = "Fetch the file anew, or try --salvage."


@dataclass(frozen=True)
class Source:
    """A file, or bytes that have a name.

    Args:
        path: The name in messages.
        at: Returns some of so many bytes from a position on.
        size: The number of bytes when it was opened.
    """

    path: Path
    at: Callable[[int, int], bytes]
    size: int

    @classmethod
    def of_file(cls, path: Path, descriptor: int) -> "Source":
        """Returns the source of an open file."""
        return cls(path, partial(os.pread, descriptor), os.fstat(descriptor).st_size)

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> "Source":
        """Returns the source of bytes."""
        return cls(Path(name), lambda count, start: data[start : start + count], len(data))

    def metered(self, most: int) -> "Source":
        """Returns a source of the same bytes, of which at most so many are read in all, many of them repeatedly."""
        left = [most]

        def at(count: int, start: int) -> bytes:
            left[0] -= count
            if left[0] < 0:
                raise OSError(errno.EIO, "parts of it overlap too often")
            return self.at(count, start)

        return replace(self, at=at)

    def read(self, start: int, count: int) -> bytes:
        """Reads `count` bytes at `start`.

        Raises:
            CodecError: The file is too short (checked before allocation), or reading fails.
        """
        if start + count > self.size:
            raise self.fault(
                f"bytes {start} to {start + count} are expected, but it ends at {self.size}: "
                "it was cut short or is damaged"
            )
        try:
            data = self.at(count, start)
        except OSError as error:
            raise self.fault(f"cannot be read at byte {start}: {error.strerror}") from error
        if len(data) != count:
            raise CodecError(f"{self.path}: became shorter while it was read. Wait until nothing writes to it.")
        return data

    def fault(self, what: str) -> CodecError:
        """Returns an error that says what is wrong with the file and what to do."""
        return CodecError(f"{self.path}: {what}. {_ADVICE}")

    def said(self, error: CodecError) -> str:
        """Returns the message of an error of `fault` without the path and the advice."""
        return str(error).removeprefix(f"{self.path}: ").removesuffix(f". {_ADVICE}")

    def pieces(self, start: int, count: int) -> Iterator[bytes]:
        """Yields `count` bytes at `start`, a mebibyte at a time."""
        for at in range(start, start + count, _PIECE):
            yield self.read(at, min(_PIECE, start + count - at))

    def find(self, pattern: bytes, start: int) -> int | None:
        """Finds `pattern` at or after `start`, or returns None; bytes that cannot be read are skipped."""
        at, size = start, 1 << 6  # small at first, so that a file full of patterns is searched in linear time
        while at < self.size:
            piece = b""
            with suppress(CodecError):
                # Pieces overlap, so a pattern across two pieces is found in the first.
                piece = self.read(at, min(size + len(pattern) - 1, self.size - at))
            if (found := piece.find(pattern)) >= 0:
                return at + found
            at, size = at + size, min(2 * size, _PIECE)
        return None


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Opens a file for reading.

    Raises:
        CodecError: The path is not a file, or it cannot be opened.
    """
    if reason := not_a_file(path):
        raise CodecError(f"{path}: {reason}. Give a file that `vdmkit compress` wrote.")
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CodecError(f"{path}: cannot be opened: {error.strerror}.") from error
    try:
        yield Source.of_file(path, descriptor)
    finally:
        os.close(descriptor)
