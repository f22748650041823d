# SPDX-License-Identifier: Apache-2.0
"""The file format `.vdmz`: a header and chunks of coded images with a CRC-32 each, written in turn, read in any order.

    VDMZ, version (1 byte), header record, chunk records, end record

A record is the number of its images (2 bytes), the length of its body (4), a CRC-32 (4) and its body. Integers are
little-endian. Only chunks have images. Bodies:

    header   a JSON object, deflated with a preset dictionary
    chunk    first 8 bytes of the SHA-256 of the pixels, then the payload: see `vdmkit_codec.payload`
    end      the names of the images, a JSON list deflated in the same way; empty without names

The CRC-32 of a chunk covers all bytes before the first chunk, the number of the chunk, and its record; the CRC-32 of
the end covers the first 10 bytes of all chunks instead of the number. So a chunk that is damaged, out of place or from
a file with a different header fails its own check, and one that is missing or from any other file fails the check of
the end.
"""

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from vdmkit.errors import CodecError
from vdmkit.io import not_a_file, writing
from vdmkit_codec.payload import MAX_PIXELS, Payload, limits_of, payload_of

Given = str | os.PathLike[str] | bytes | bytearray | memoryview  # the path of a file, or its bytes

DIGEST = 8  # bytes of the SHA-256 of a chunk's pixels
_START = b"VDMZ\x03"
_FIELDS = struct.Struct("<HI")  # images, length of the body
_FRAME = _FIELDS.size + 4
_MAX_PAYLOAD, _MAX_HEADER, _MAX_NAMES = 1 << 30, 1 << 22, 1 << 26  # bytes, the last two of JSON
# A typical header. One that has much in common with it takes 100 bytes instead of 240.
_DICTIONARY = (
    b'{"device":"1 x cpu","flags":"","processor":"x86_64 0.0078125,"weights":"raw"gaussianhost],"levels":256,[32,32,3]'
    b'{"chunk":1024,"gammas":[-393216,52430,52429,52430,52429],"group":64,"kernel":"mixture","levels":17,"log_errors":'
    b'[],"machine":"jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6","model":"0123456789abcdef","probe":{"offsets":[0,0,0,0],"s'
    b'ha256":""},"profile":"portable","seed":0,"shape":[8,8,1],"spacing":0.11764705882352941,"step":1600,"tables":"","'
    b'weights":"ema"}'
)


@dataclass(frozen=True)
class Chunk:
    """Up to 65535 images that are coded together, and the first 8 bytes of the SHA-256 of their uint8 pixels."""

    images: int
    payload: bytes
    pixels_sha256: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.images < 1 << 16 or len(self.pixels_sha256) != DIGEST or len(self.payload) > _MAX_PAYLOAD:
            raise ValueError(f"a chunk of {self.images} images and {len(self.payload)} bytes cannot be written")

    def record(self, head: bytes, ordinal: int) -> bytes:
        return _record(head + ordinal.to_bytes(8), self.images, self.pixels_sha256 + self.payload)


@dataclass(frozen=True)
class Entry:
    """A chunk's number, its images, its place in the file, and its frame: the bytes of its record before the body."""

    ordinal: int
    first: int
    next_image: int
    offset: int
    end: int
    frame: bytes

    @property
    def images(self) -> int:
        return self.next_image - self.first

    @property
    def title(self) -> str:
        return f"chunk {self.ordinal} (images {self.first} to {self.next_image - 1})"


class Reader:
    """An open .vdmz file, made by `open_reader`. Threads may read concurrently.

    Attributes:
        path, bytes: The file, and its size.
        header: The header, a JSON object.
        chunks: The positions of its chunks, in order.
        images, names: Number of images, and a name for each in order, or None.
    """

    def __init__(self, source: "_Source", max_pixels: int) -> None:
        self._source, self.path, self.bytes = source, source.path, source.size
        self._head, self.header = _read_head(source)
        self._limits = limits_of(self.header, max_pixels)
        self.chunks = list(_scan(source, self._head))
        self.images = self.chunks[-1].next_image if self.chunks else 0
        self.names = self._read_end()

    def chunk(self, i: int) -> Chunk:
        """Reads chunk `i`. Raises CodecError if it is damaged."""
        chunk = _read_chunk(self._source, self._head, self.chunks[i])
        if chunk is None:
            raise self._source.fault(f"{self.chunks[i].title} is damaged or out of place: its CRC-32 does not match")
        return chunk

    def payload(self, i: int) -> Payload:
        """Parses chunk `i`. Raises CodecError also if its numbers exceed its length, the header or the limits."""
        chunk = self.chunk(i)
        try:
            return payload_of(chunk.payload, chunk.images, self._limits)
        except CodecError as error:
            raise CodecError(f"{self.path}: {self.chunks[i].title}: {error}.") from error

    def _read_end(self) -> list[str] | None:
        """Checks the end record, and returns the names in it."""
        source, start = self._source, self.chunks[-1].end if self.chunks else len(self._head)
        frame = source.frame(start)
        body = source.read(start + _FRAME, frame[1]) if frame else b""
        context = self._head + b"".join(entry.frame for entry in self.chunks)
        if frame is None or frame[2] != _frame(context, 0, body):
            for i in range(len(self.chunks)):
                self.chunk(i)  # a damaged length hides all later records, so this names its chunk
            if frame:
                raise source.fault("its end is damaged, or chunks are missing: the CRC-32 of its end does not match")
            if source.path.suffix == ".part":
                raise CodecError(f"{source.path}: is not finished. `vdmkit compress --resume` continues it.")
            raise source.fault(f"was cut short after {len(self.chunks)} chunks, or the next record is damaged")
        if more := source.size - start - _FRAME - len(body):
            raise source.fault(f"{more} bytes follow its end")
        try:
            return _unpacked_names(body, self.images) if body else None
        except (ValueError, zlib.error) as error:
            raise source.fault(f"its names cannot be read: {error}") from error


@contextmanager
def open_reader(given: Given, *, max_pixels: int = MAX_PIXELS, name: str = "the data") -> Iterator[Reader]:
    """Opens a .vdmz file whose chunks have at most `max_pixels` values; `name` refers to in-memory data in messages.

    Raises CodecError if it is not a whole .vdmz file of this version. Chunks are verified when they are read.
    """
    if not isinstance(given, str | os.PathLike):
        data = bytes(given)
        yield Reader(_Source(Path(name), lambda count, start: data[start : start + count], len(data)), max_pixels)
    elif reason := not_a_file(Path(given)):
        raise CodecError(f"{given}: {reason}. Give a file that `vdmkit compress` wrote.")
    else:
        with _opened(Path(given), os.O_RDONLY) as descriptor:
            yield Reader(_Source(Path(given), partial(os.pread, descriptor), os.fstat(descriptor).st_size), max_pixels)


class Writer:
    """Appends chunks to an unfinished file and finishes it; made by `open_writer`."""

    def __init__(self, path: Path, source: "_Source", descriptor: int, head: bytes, entries: list[Entry]) -> None:
        self._path, self._source, self._descriptor = path, source, descriptor
        self._head, self._entries, self.finished = head, entries, False
        self._end = entries[-1].end if entries else len(head)

    @property
    def images(self) -> int:
        """Number of images on the disk; after resuming, the caller continues with the next."""
        return self._entries[-1].next_image if self._entries else 0

    def written(self) -> Iterator[Chunk]:
        """Yields the chunks in the file, so that a resumed command can check that they hold the same images."""
        yield from filter(None, (_read_chunk(self._source, self._head, entry) for entry in self._entries))

    def append(self, chunk: Chunk) -> None:
        """Writes a chunk to the disk. After an OSError earlier chunks are whole, and it may be appended again."""
        ordinal, first, offset = len(self._entries), self.images, self._end
        record = chunk.record(self._head, ordinal)
        self._write(record, offset)
        self._end += len(record)
        self._entries.append(Entry(ordinal, first, first + chunk.images, offset, self._end, record[:_FRAME]))

    def finish(self, names: list[str] | None) -> None:
        """Writes the names of all images in order, if any, and renames the file. After an OSError it is unfinished."""
        context = self._head + b"".join(entry.frame for entry in self._entries)
        self._write(_record(context, 0, _packed_names(names, self.images)), self._end)
        with writing(part_of(self._path)):
            os.replace(part_of(self._path), self._path)
        self.finished = True
        _sync_folder(self._path)

    def _write(self, data: bytes, offset: int) -> None:
        """Writes the last bytes of the file, and waits until they are on the disk."""
        if self.finished:
            raise ValueError(f"{self._path} is finished")
        left = memoryview(data)
        with writing(part_of(self._path)):
            while left:
                written = os.pwrite(self._descriptor, left, offset)
                left, offset = left[written:], offset + written
            os.ftruncate(self._descriptor, offset)
            os.fsync(self._descriptor)


@contextmanager
def open_writer(path: Path, header: dict[str, Any], *, resume: bool) -> Iterator[Writer]:
    """Begins a .vdmz file, or resumes it after its last whole chunk. It is `NAME.part` until it is finished.

    Raises CodecError if a `.part` exists and `resume` is false, a different process is writing it, or its header is
    damaged or differs; and ValueError if the header is not a JSON object, with lists for tuples and without NaN.
    """
    head, part = _START + _record(_START, 0, _packed(header, _MAX_HEADER)), part_of(path)
    entries = list[Entry]()
    with _opened(part, os.O_RDWR | os.O_CREAT) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
            # A different process may have finished and renamed the file since it was opened.
            held = os.path.samestat(os.fstat(descriptor), os.stat(part))
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise CodecError(f"{part}: a different process is writing it. Wait for it, or choose a different -o.")
        source = _Source(part, partial(os.pread, descriptor), os.fstat(descriptor).st_size)
        if source.size and not resume:
            raise CodecError(f"{part}: exists and is not finished. Use --resume to continue it, or delete it.")
        if source.size > len(head) or not head.startswith(source.read(0, source.size)):
            head = _head_to_resume(source, header)
            entries = list(takewhile(partial(_read_chunk, source, head), _scan(source, head)))
        writer = Writer(path, source, descriptor, head, entries)
        try:
            writer._write(b"" if entries else head, entries[-1].end if entries else 0)  # cuts off what follows
            _sync_folder(path)
            yield writer
        finally:
            if not writer.images and not writer.finished:
                part.unlink(missing_ok=True)  # nothing to resume


def part_of(path: Path) -> Path:
    """Returns the path where a .vdmz file is written until it is finished."""
    return path.with_name(f"{path.name}.part")


def pack_file(header: dict[str, Any], chunks: Sequence[Chunk], names: list[str] | None = None) -> bytes:
    """Returns a file of these chunks, as `open_writer` writes it. Raises ValueError as it does."""
    head = _START + _record(_START, 0, _packed(header, _MAX_HEADER))
    records = [chunk.record(head, ordinal) for ordinal, chunk in enumerate(chunks)]
    context = head + b"".join(record[:_FRAME] for record in records)
    named = _packed_names(names, sum(chunk.images for chunk in chunks))
    return b"".join([head, *records, _record(context, 0, named)])


def size_of_file(header: dict[str, Any], chunks: Sequence[tuple[int, int]], names: list[str] | None) -> int:
    """Returns the number of bytes in a file whose chunks have these numbers of images and bytes of payload."""
    without_payloads = [Chunk(images, b"", bytes(DIGEST)) for images, _ in chunks]
    return len(pack_file(header, without_payloads, names)) + sum(size for _, size in chunks)


@dataclass(frozen=True)
class _Source:
    """A file or bytes, read by position: `at(count, start)` returns up to `count` bytes."""

    path: Path
    at: Callable[[int, int], bytes]
    size: int

    def read(self, start: int, count: int) -> bytes:
        try:
            data = self.at(count, start)
        except OSError as error:
            raise self.fault(f"cannot be read at byte {start}: {error.strerror}") from error
        if len(data) != count:
            raise CodecError(f"{self.path}: became shorter while it was read. Wait until nothing writes to it.")
        return data

    def frame(self, start: int) -> tuple[int, int, bytes] | None:
        """Returns the images, length and frame of the record at `start`; None if it extends beyond the file."""
        if start + _FRAME > self.size:
            return None
        data = self.read(start, _FRAME)
        images, length = _FIELDS.unpack_from(data)
        return None if start + _FRAME + length > self.size else (images, length, data)

    def fault(self, what: str) -> CodecError:
        return CodecError(f"{self.path}: {what}. Fetch the file again, or compress the images again.")


def _read_head(source: _Source) -> tuple[bytes, dict[str, Any]]:
    """Returns the bytes before the first chunk, and the header in them."""
    start = source.read(0, min(len(_START), source.size))
    if not start or not _START.startswith(start[:4]):
        words = f"is not a .vdmz file: it begins with {start[:4]!r}, not with {_START[:4]!r}"
        raise CodecError(f"{source.path}: {words}. Give a file that `vdmkit compress` wrote.")
    if not _START.startswith(start):
        words = f"has version {start[4]} of the format, and this vdmkit-codec reads version {_START[4]}"
        raise CodecError(f"{source.path}: {words}. Install the vdmkit-codec that wrote it.")
    frame = source.frame(len(_START))
    if frame is None:
        raise source.fault("was cut short within its header, or the header is damaged")
    head = source.read(0, len(_START) + _FRAME + frame[1])
    body = head[len(_START) + _FRAME :]
    if frame[2] != _frame(_START, 0, body):
        raise source.fault("its header is damaged: its CRC-32 does not match")
    try:
        header = json.loads(_unpacked(body, _MAX_HEADER))
        if not isinstance(header, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, RecursionError, zlib.error) as error:
        raise CodecError(f"{source.path}: its header cannot be read: {error}. It was not written by vdmkit.") from error
    return head, header


def _scan(source: _Source, head: bytes) -> Iterator[Entry]:
    """Yields the positions of the chunks by the lengths in their records, without verifying them."""
    ordinal, first, offset = 0, 0, len(head)
    while (frame := source.frame(offset)) and frame[0]:
        entry = Entry(ordinal, first, first + frame[0], offset, offset + _FRAME + frame[1], frame[2])
        yield entry
        ordinal, first, offset = ordinal + 1, entry.next_image, entry.end


def _read_chunk(source: _Source, head: bytes, entry: Entry) -> Chunk | None:
    """Returns a chunk, or None if its CRC does not match."""
    start = entry.offset + _FRAME
    body = source.read(start, entry.end - start) if entry.end - start <= DIGEST + _MAX_PAYLOAD else b""
    if len(body) < DIGEST or entry.frame != _frame(head + entry.ordinal.to_bytes(8), entry.images, body):
        return None
    return Chunk(entry.images, body[DIGEST:], body[:DIGEST])


def _record(context: bytes, images: int, body: bytes) -> bytes:
    return _frame(context, images, body) + body


def _frame(context: bytes, images: int, body: bytes) -> bytes:
    fields = _FIELDS.pack(images, len(body))
    return fields + zlib.crc32(body, zlib.crc32(context + fields)).to_bytes(4, "little")


def _packed_names(names: list[str] | None, images: int) -> bytes:
    if names is not None and len(names) != images:
        raise ValueError(f"{len(names)} names for {images} images")
    return b"" if names is None else _packed(names, _MAX_NAMES)


def _unpacked_names(packed: bytes, images: int) -> list[str]:
    text = _unpacked(packed, _MAX_NAMES)
    # Quotes within names are escaped, so this counts them before a forged text becomes many Python objects.
    count = text.count(b'","') + 1 if text != b"[]" else 0
    names = json.loads(text) if count == images else None
    if not isinstance(names, list) or len(names) != images or not all(isinstance(name, str) for name in names):
        raise ValueError(f"it is not a list of {images} names")
    return names


def _packed(value: Any, most: int) -> bytes:
    """Deflates canonical JSON, in ASCII so that file names that are not UTF-8 survive. NaN raises ValueError."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(text) > most:
        raise ValueError(f"{len(text)} bytes of JSON; at most {most} are read")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=_DICTIONARY)
    return packer.compress(text) + packer.flush()


def _unpacked(data: bytes, most: int) -> bytes:
    """Inflates JSON. Raises zlib.error or ValueError for damaged data, or more than `most` bytes."""
    unpacker = zlib.decompressobj(-15, _DICTIONARY)
    text = unpacker.decompress(data, most + 1)
    if len(text) > most or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"it does not end where it should, within {most} bytes")
    return text


def _head_to_resume(source: _Source, header: dict[str, Any]) -> bytes:
    """Returns the head of an unfinished file. Raises CodecError if it is damaged or has a different header."""
    try:
        head, begun = _read_head(source)
    except CodecError as error:
        raise CodecError(f"{error} It cannot be resumed: delete it to start over.") from error
    if changed := [key for key in sorted({*begun, *header}) if begun.get(key) != header.get(key)]:
        words = f"was begun with other values of {', '.join(changed)}"
        raise CodecError(f"{source.path}: {words}. Resume with the same settings, or delete it to start over.")
    return head


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Flushes the names of the files in the folder of a path to the disk."""
    with _opened(path.absolute().parent, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
