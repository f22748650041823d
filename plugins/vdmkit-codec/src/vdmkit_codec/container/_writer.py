# SPDX-License-Identifier: Apache-2.0
"""Writes a .vdmz file chunk by chunk. If the process is killed, the file is absent, resumable or complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdmkit.io import whole_file, writing
from vdmkit_codec.container._chunk import Chunk, Entry, pack_chunk, place_after, read_chunk
from vdmkit_codec.container._head import Head, make_head
from vdmkit_codec.container._part import hold, take_up
from vdmkit_codec.container._small import SMALL, pack_small
from vdmkit_codec.container._source import Source
from vdmkit_codec.container._tail import pack_tail


class Writer:
    """Appends chunks to an unfinished file, and finishes it; made by `open_writer`."""

    def __init__(self, path: Path, descriptor: int, head: Head, entries: list[Entry], small: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._head = head
        self._entries = entries
        self._small = small
        self.finished = False

    @property
    def images(self) -> int:
        """Returns the number of images on the disk; after resuming, the caller continues with the next."""
        return self._entries[-1].next_image if self._entries else 0

    def begin(self) -> None:
        """Writes the head, and truncates the file after the last complete chunk; called by `open_writer`."""
        with writing(part_of(self._path)):
            _write(self._descriptor, self._head.raw, 0)
            os.ftruncate(self._descriptor, self._end)
            os.fsync(self._descriptor)
            _sync_folder(self._path)

    def written(self) -> Iterator[Chunk]:
        """Yields the chunks in the file, so that a resumed command can check that they hold the same images."""
        source = Source.of_file(part_of(self._path), self._descriptor)
        for entry in self._entries:
            chunk = read_chunk(source, entry, self._head.file_id)
            if chunk is not None:  # it was complete when the file was resumed
                yield chunk

    def append(self, chunk: Chunk) -> None:
        """Writes a chunk; it is on the disk when this returns.

        Raises:
            OSError: The chunk cannot be written. Earlier chunks are complete, and the chunk may be appended again.
        """
        self._check_unfinished()
        place = place_after(self._entries[-1] if self._entries else None, len(self._head.raw))
        header, entry = pack_chunk(chunk, place, self._head.file_id)
        with writing(part_of(self._path)):
            _write(self._descriptor, header + chunk.payload, entry.offset)
            os.fsync(self._descriptor)
        self._entries.append(entry)

    def finish(self, names: list[str] | None) -> None:
        """Writes the names of all images in order, if any, and the parts after the chunks, and renames the file.

        Raises:
            ValueError: The number of names differs from that of images.
            OSError: The file cannot be written, and stays unfinished.
        """
        self._check_unfinished()
        if self._finish_small(names):
            return
        tail = pack_tail(self._head, self._entries, names)
        with writing(part_of(self._path)):
            _write(self._descriptor, tail, self._end)
            os.ftruncate(self._descriptor, self._end + len(tail))
            os.fsync(self._descriptor)
            os.replace(part_of(self._path), self._path)
        self.finished = True
        _sync_folder(self._path)

    def _finish_small(self, names: list[str] | None) -> bool:
        """Writes a small file anew in the form of small files; returns whether it is small."""
        if self._end > self._small:
            return False
        data = pack_small(self._head.header, list(self.written()), names)
        if len(data) > self._small:
            return False
        with whole_file(self._path) as other, other.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part_of(self._path).unlink()
        self.finished = True
        _sync_folder(self._path)
        return True

    @property
    def _end(self) -> int:
        return self._entries[-1].end if self._entries else len(self._head.raw)

    def _check_unfinished(self) -> None:
        if self.finished:
            raise ValueError(f"{self._path} is finished")


def part_of(path: Path) -> Path:
    """Returns the path where a .vdmz file is written until it is finished."""
    return path.with_name(f"{path.name}.part")


@contextmanager
def open_writer(path: Path, header: dict[str, Any], *, resume: bool, small: int = SMALL) -> Iterator[Writer]:
    """Begins or resumes a .vdmz file. It is `NAME.part` until it is finished, then replaces `path`.

    A block that ends without `finish` leaves a `.part` to be resumed, if that has a chunk.

    Args:
        path: The file to write.
        header: A JSON object (lists, not tuples; no NaN). Its SHA-256 enters every checksum of the file.
        resume: Whether to continue an existing `.part` after its last complete chunk.
        small: Bytes up to which a file is written in the form of small files.

    Raises:
        CodecError: A `.part` exists and `resume` is false, another process writes it, it was begun with another
            header, or its header is damaged.
        ValueError: The header is not JSON.
        OSError: The file cannot be written.
    """
    head, part = make_head(header), part_of(path)
    with hold(part, resume=resume) as descriptor:
        source = Source.of_file(part, descriptor)
        taken_up = take_up(source, head) if source.size else None
        writer = Writer(path, descriptor, *(taken_up or (head, [])), small)
        try:
            writer.begin()
            yield writer
        finally:
            if not writer.images and not writer.finished:
                part.unlink(missing_ok=True)  # nothing to resume


def _write(descriptor: int, data: bytes, start: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, start)
        left, start = left[written:], start + written


def _sync_folder(path: Path) -> None:
    """Flushes a folder to the disk, and with it the names of its files."""
    descriptor = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
