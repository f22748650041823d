# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file or in memory, read in order and never beyond their end."""

import io
from typing import BinaryIO

from vdmkit.importers.files._limits import Malformed

_LONGEST_LINE = 1000  # a pickle's globals are lines


class FileBytes:
    """The `size` bytes of an open file. A file would take memory for as many bytes as are asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.remaining = file, size

    def read(self, n: int) -> bytes:
        """Returns n bytes."""
        if not 0 <= n <= self.remaining:
            raise Malformed(f"it is truncated or damaged: {n:,} bytes are expected where {self.remaining:,} remain")
        data = self._file.read(n)
        if len(data) < n:
            raise Malformed("it became shorter while it was read")
        self.remaining -= n
        return data

    take = read

    def readline(self) -> bytes:
        """Returns a line of at most 1,000 bytes, or the start of a longer one."""
        line = self._file.readline(min(_LONGEST_LINE, self.remaining))
        self.remaining -= len(line)
        return line


class MemoryBytes(io.BytesIO):
    """Bytes in memory, which `take` does not copy."""

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(data)
        self._data = data

    @property
    def remaining(self) -> int:
        return len(self._data) - self.tell()

    def take(self, n: int) -> memoryview:
        """Returns n bytes."""
        if n > self.remaining:
            raise Malformed(f"it is truncated or damaged: {n:,} bytes are expected where {self.remaining:,} remain")
        end = self.seek(n, io.SEEK_CUR)
        return memoryview(self._data)[end - n : end]


Bytes = FileBytes | MemoryBytes


def expect_end(source: Bytes) -> None:
    """Raises Malformed if bytes remain."""
    if source.remaining:
        raise Malformed(f"{source.remaining:,} bytes follow where it should end")
