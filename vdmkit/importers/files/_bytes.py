# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file or in memory, read in order and never beyond their end."""

from typing import BinaryIO

from vdmkit.importers.files._limits import Malformed

_LONGEST_LINE = 1000  # a pickle's globals are lines


class Bytes:
    """Reads `size` bytes of an open file, or bytes in memory, which `take` does not copy."""

    def __init__(self, source: BinaryIO | bytes | memoryview, size: int) -> None:
        self._view = memoryview(source) if isinstance(source, bytes | memoryview) else None
        self._file: BinaryIO = source  # type: ignore[assignment]
        self._size, self._at = size, 0

    @property
    def remaining(self) -> int:
        return self._size - self._at

    def tell(self) -> int:
        return self._at

    def read(self, n: int) -> bytes:
        """Returns n bytes."""
        return bytes(self.take(n))

    def readline(self) -> bytes:
        """Returns a line of at most 1,000 bytes, or the start of a longer one."""
        start, ahead = self._at, self.read(min(_LONGEST_LINE, self.remaining))
        self._back(start + ahead.find(b"\n") + 1 if b"\n" in ahead else self._at)
        return ahead[: self._at - start]

    def take(self, n: int) -> memoryview | bytes:
        """Returns n bytes, of memory without a copy."""
        if not 0 <= n <= self.remaining:
            raise Malformed(f"it is truncated or damaged: {n:,} bytes are expected where {self.remaining:,} remain")
        data = self._file.read(n) if self._view is None else self._view[self._at : self._at + n]
        self._at += n
        if len(data) < n:
            raise Malformed("it became shorter while it was read")
        return data

    def expect_end(self) -> None:
        """Raises Malformed if bytes remain."""
        if self.remaining:
            raise Malformed(f"{self.remaining:,} bytes follow where it should end")

    def _back(self, at: int) -> None:
        if self._view is None:
            self._file.seek(at - self._at, 1)
        self._at = at
