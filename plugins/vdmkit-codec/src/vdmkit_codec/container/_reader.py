# SPDX-License-Identifier: Apache-2.0
"""Reads a .vdmz file chunk by chunk, in any order; errors are raised before a pixel is decoded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from vdmkit.errors import CodecError
from vdmkit_codec.container._chunk import Chunk, Entry, read_chunk, read_entry
from vdmkit_codec.container._contents import Contents, check_order, read_contents
from vdmkit_codec.container._head import Head, read_head
from vdmkit_codec.container._limits import MAX_PIXELS, limits_of
from vdmkit_codec.container._payload import Payload, payload_of
from vdmkit_codec.container._salvage import read_undamaged
from vdmkit_codec.container._small import read_small_chunk
from vdmkit_codec.container._source import Source, open_source

Given = str | os.PathLike[str] | bytes | bytearray | memoryview
"""The path of a file, or its bytes."""


class Reader:
    """An open .vdmz file, made by `open_reader`. Threads may read concurrently.

    Attributes:
        path: The file.
        header: The header, a JSON object.
        chunks: Its chunks in order; a salvaged file includes the known damaged ones.
        images: Number of images that were written; for a salvaged file, the known number.
        names: Names of the images in order, or None.
        damaged: Descriptions of damage in a salvaged file; else empty.
    """

    def __init__(self, source: Source, head: Head, contents: Contents, max_pixels: int = MAX_PIXELS) -> None:
        self._source = source
        self._limits = limits_of(head.header, max_pixels)
        self.path: Path = source.path
        self._head = head
        self.header: dict[str, Any] = head.header
        self.chunks: list[Entry] = contents.entries
        self.images: int = contents.images
        self.names: list[str] | None = contents.names
        self.damaged: list[str] = contents.damaged

    def tells(self, i: int) -> bool:
        """Returns whether `damaged` mentions chunk `i` of `chunks`."""
        return self.chunks[i].title in self._told

    @cached_property
    def _told(self) -> set[str]:
        return {words.partition(" is ")[0] for words in self.damaged}

    @property
    def bytes(self) -> int:
        """Returns the size of the file."""
        return self._source.size

    def payload(self, i: int) -> Payload:
        """Reads and parses chunk `i` of `chunks`, as `chunk`.

        Raises:
            CodecError: As `chunk`, or it asks for more than the header, its own length or the limits allow.
        """
        try:
            return payload_of(self.chunk(i).payload, self.chunks[i].images, self._limits, self._head.version)
        except CodecError as error:
            words = str(error)
            if words.startswith(str(self.path)):
                raise
            raise CodecError(f"{self.path}: {self.chunks[i].title}: {words}.") from error

    def chunk(self, i: int) -> Chunk:
        """Reads and verifies chunk `i` of `chunks`.

        Raises:
            CodecError: The chunk is damaged, in the wrong place, or of another file.
        """
        expected, source = self.chunks[i], self._source
        if self.tells(i):
            raise source.fault(f"{expected.title} is damaged")
        if self._head.small:
            if chunk := read_small_chunk(source, self._head, expected):
                return chunk
            raise source.fault(f"{expected.title} is damaged")
        entry = read_entry(source, expected.offset, self._head.file_id)
        if entry is None:
            check_order(source, self._head)
        if entry and entry.ordinal != expected.ordinal:
            raise source.fault(f"chunks are out of order: chunk {entry.ordinal} where chunk {expected.ordinal} belongs")
        if entry and entry != expected:
            raise source.fault(
                f"{expected.title} is not the one that the index lists, but one of another file with the same header"
            )
        chunk = read_chunk(source, expected, self._head.file_id) if entry else None
        if chunk is None:
            raise source.fault(f"{expected.title} is damaged")
        return chunk


@contextmanager
def open_reader(
    given: Given, *, salvage: bool = False, max_pixels: int = MAX_PIXELS, name: str = "the data"
) -> Iterator[Reader]:
    """Opens a .vdmz file.

    Args:
        given: The path of a file, or its bytes.
        salvage: Whether to search the whole file, finished or not, for undamaged chunks. One of the two copies of the
            header must be intact.
        max_pixels: Largest number of values in a chunk.
        name: The name of bytes in messages.

    Raises:
        CodecError: It is not a .vdmz file, of a newer version, truncated, or damaged. Chunks are verified when they
            are read.
    """
    of_path = isinstance(given, str | os.PathLike)
    with open_source(Path(given)) if of_path else nullcontext(Source.of_bytes(bytes(given), name)) as source:
        if salvage:
            yield Reader(source, *read_undamaged(source), max_pixels)
        else:
            head = read_head(source)
            yield Reader(source, head, read_contents(source, head), max_pixels)
