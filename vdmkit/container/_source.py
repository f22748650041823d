# SPDX-License-Identifier: Apache-2.0
"""A file that is read by position, and never beyond its end; threads may read at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vdmkit.errors import CodecError
from vdmkit.paths import not_a_file

_PIECE = 1 << 20
_ADVICE = "Fetch the file anew, or try --salvage."


@dataclass(frozen=True)
class Source:
    """An open file and its size when it was opened, in bytes."""

    path: Path
    descriptor: int
    size: int

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes at `start`.

        Raises:
            CodecError: They are not all there (known before anything is allocated), or the disk fails.
        """
        if start + count > self.size:
            raise self.fault(
                f"bytes {start} to {start + count} are expected, but it ends at {self.size}: "
                "it was cut short or is damaged"
            )
        try:
            data = os.pread(self.descriptor, count, start)
        except OSError as error:
            raise self.fault(f"cannot be read at byte {start}: {error.strerror}") from error
        if len(data) != count:
            raise CodecError(f"{self.path}: became shorter while it was read. Wait until nothing writes to it.")
        return data

    def fault(self, what: str) -> CodecError:
        """What is wrong with the file, where, and what to do."""
        return CodecError(f"{self.path}: {what}. {_ADVICE}")

    def said(self, error: CodecError) -> str:
        """The middle of it alone."""
        return str(error).removeprefix(f"{self.path}: ").removesuffix(f". {_ADVICE}")

    def pieces(self, start: int, count: int) -> Iterator[bytes]:
        """The same bytes, a mebibyte at a time."""
        for at in range(start, start + count, _PIECE):
            yield self.read(at, min(_PIECE, start + count - at))

    def find(self, pattern: bytes, start: int) -> int | None:
        """Where `pattern` is first found at or after `start`; what the disk does not give is passed over."""
        at, size = start, 1 << 12  # small at first: a file of nothing but patterns is searched in linear time
        while at < self.size:
            piece = b""
            with suppress(CodecError):
                # What lies across two pieces is found in the first of them.
                piece = self.read(at, min(size + len(pattern) - 1, self.size - at))
            if (found := piece.find(pattern)) >= 0:
                return at + found
            at, size = at + size, min(2 * size, _PIECE)
        return None


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """A file for reading.

    Raises:
        CodecError: It is not a file, or cannot be opened.
    """
    if reason := not_a_file(path):
        raise CodecError(f"{path}: {reason}. Give a file that `vdmkit compress` wrote.")
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CodecError(f"{path}: cannot be opened: {error.strerror}.") from error
    try:
        yield Source(path, descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
