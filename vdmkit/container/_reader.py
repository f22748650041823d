# SPDX-License-Identifier: Apache-2.0
"""Reads a .vdmz file chunk by chunk, in any order; what is wrong with it is said before a pixel is decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdmkit.container._chunk import Chunk, Entry, read_chunk, read_entry
from vdmkit.container._contents import Contents, check_order, read_contents
from vdmkit.container._head import Head, read_head
from vdmkit.container._salvage import read_undamaged
from vdmkit.container._source import Source, open_source


class Reader:
    """An open .vdmz file. Made by `open_reader`. Threads may read at once.

    Attributes:
        path: Where it is.
        header: The JSON object that it was written with.
        chunks: Its chunks in order; damaged ones that are known of are among them when it is salvaged.
        images: How many images it was written with; of a salvaged file as many as are known of.
        names: Their names in order, or None if it holds none.
        damaged: What is damaged, in words, when it is salvaged; else nothing.
    """

    def __init__(self, source: Source, head: Head, contents: Contents) -> None:
        self._source = source
        self.path: Path = source.path
        self._head = head
        self.header: dict[str, Any] = head.header
        self.chunks: list[Entry] = contents.entries
        self.images: int = contents.images
        self.names: list[str] | None = contents.names
        self.damaged: list[str] = contents.damaged

    def tells(self, i: int) -> bool:
        """Whether `damaged` says already that chunk `i` of `chunks` is damaged."""
        return any(words.startswith(f"{self.chunks[i].title} is") for words in self.damaged)

    def chunk(self, i: int) -> Chunk:
        """Chunk `i` of `chunks`, verified.

        Raises:
            CodecError: It is damaged, not the one that belongs there, or of another file.
        """
        expected, source = self.chunks[i], self._source
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
def open_reader(path: Path, *, salvage: bool = False) -> Iterator[Reader]:
    """Open a .vdmz file.

    Args:
        path: The file.
        salvage: Take what is undamaged of it, finished or not: chunks are then searched for in the whole file. One
            of the two copies of its header must be whole.

    Raises:
        CodecError: It is no .vdmz file, of a newer version, cut short, or damaged. Chunks are verified when they are
            read.
    """
    with open_source(path) as source:
        if salvage:
            yield Reader(source, *read_undamaged(source))
        else:
            head = read_head(source)
            yield Reader(source, head, read_contents(source, head))
