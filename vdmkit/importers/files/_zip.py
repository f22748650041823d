# SPDX-License-Identifier: Apache-2.0
"""Entries of a zip file, all of whose claims are checked before any is read.

Python's `zipfile` reads a directory of any size, and decompresses past the size that an entry declares.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from vdmkit.importers.files._limits import Malformed, shown

_END, _END64, _LOCATOR = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_ENTRY, _LOCAL = struct.Struct("<4s4xHH4xIIIHHH8xI"), struct.Struct("<4s22xHH")
_STORED, _DEFLATED, _ENCRYPTED = 0, 8, 1
_PIECE = 1 << 20
_LONGEST_DIRECTORY = 16_000_000
_MOST_COMPRESSED = 20
"""Weights shrink by a tenth, or to a third if they were rounded; zeros shrink a thousandfold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the directory: where its local header is, its sizes in the file and when read, and its checksum."""

    offset: int
    n_stored: int
    n_bytes: int
    crc: int
    compressed: bool


class Archive:
    """A zip file that is open for reading.

    Raises Malformed if it is truncated, has an entry twice, entries that overlap, or names that lead out of it.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._entries = self._directory()
        stored, whole = (sum(getattr(entry, n) for entry in self._entries.values()) for n in ("n_stored", "n_bytes"))
        if stored > size or whole > max(_MOST_COMPRESSED * size, 1_000_000):
            raise Malformed(f"its entries claim {whole:,} bytes, and it has {size:,}")

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def is_compressed(self) -> bool:
        return any(entry.compressed for entry in self._entries.values())

    def read(self, name: str, n_bytes: int | None = None) -> UInt8[np.ndarray, " n"]:
        """Returns the bytes of an entry, of which there must be `n_bytes`."""
        if (entry := self._entries.get(name)) is None:
            raise Malformed(f"it has no entry {shown(name)}")
        if n_bytes is not None and entry.n_bytes != n_bytes:
            raise Malformed(f"entry {shown(name)} has {entry.n_bytes:,} bytes where {n_bytes:,} are expected")
        start = self._start(name, entry)
        data = self._inflated(entry, start) if entry.compressed else self._at(start, entry.n_stored)
        if zlib.crc32(data) != entry.crc:
            raise Malformed(f"entry {shown(name)} is damaged: its checksum is another")
        return np.frombuffer(data, np.uint8)

    def _start(self, name: str, entry: Entry) -> int:
        """Returns where the bytes of an entry begin, behind its local header, which repeats the name."""
        mark, n_name, n_extra = _LOCAL.unpack(self._at(entry.offset, _LOCAL.size))
        end = entry.offset + _LOCAL.size + n_name
        if mark != b"PK\3\4" or self._at(end - n_name, n_name) != name.encode():
            raise Malformed(f"its directory is damaged: entry {shown(name)} is elsewhere")
        return end + n_extra

    def _inflated(self, entry: Entry, start: int) -> bytearray:
        """Decompresses a piece at a time, up to the size that was declared."""
        inflate, data = zlib.decompressobj(-15), bytearray()
        for at in range(start, start + entry.n_stored, _PIECE):
            piece = self._at(at, min(_PIECE, start + entry.n_stored - at))
            data += inflate.decompress(piece, entry.n_bytes - len(data) + 1)
            if len(data) > entry.n_bytes:
                break
        if len(data) != entry.n_bytes:
            raise Malformed("a compressed entry has another size than it declares")
        return data

    def _at(self, offset: int, n: int) -> bytes:
        if not 0 <= offset <= offset + n <= self._size:
            raise Malformed("it is truncated or damaged: an entry lies beyond its end")
        self._file.seek(offset)
        return self._file.read(n)

    def _directory(self) -> dict[str, Entry]:
        data, entries, at = self._directory_bytes(), {}, 0
        while at < len(data):
            name, entry, at = _parse(data, at)
            if name in entries:
                raise Malformed(f"it has two entries {shown(name)}")
            entries[name] = entry
        return entries

    def _directory_bytes(self) -> bytes:
        end = self._size - 22
        if end < 0 or self._at(end, 4) != _END:
            raise Malformed("it is a truncated zip file, or bytes follow its end")
        n, offset = struct.unpack("<12xII2x", self._at(end, 22))
        if end >= 76 and self._at(end - 20, 4) == _LOCATOR and self._at(end - 76, 4) == _END64:
            n, offset = struct.unpack("<40xQQ", self._at(end - 76, 56))
        if n > _LONGEST_DIRECTORY:
            raise Malformed(f"its directory claims {n:,} bytes")
        return self._at(offset, n)


def _parse(data: bytes, at: int) -> tuple[str, Entry, int]:
    """Returns an entry's name, the entry, and where the next one begins."""
    mark, flags, method, crc, n_stored, n_bytes, n_name, n_extra, n_comment, offset = _ENTRY.unpack_from(data, at)
    name_end = at + _ENTRY.size + n_name
    if mark != b"PK\1\2" or name_end + n_extra + n_comment > len(data):
        raise Malformed("its directory is damaged")
    name = data[at + _ENTRY.size : name_end].decode()
    if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
        raise Malformed(f"entry {shown(name)} is encrypted, or compressed in a way that no checkpoint is")
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise Malformed(f"entry {shown(name)} leads out of the file")
    n_bytes, n_stored, offset = _wide((n_bytes, n_stored, offset), data[name_end : name_end + n_extra])
    compressed = method == _DEFLATED
    if not compressed and n_bytes != n_stored:
        raise Malformed(f"entry {shown(name)} claims {n_bytes:,} bytes and has {n_stored:,}")
    return name, Entry(offset, n_stored, n_bytes, crc, compressed), name_end + n_extra + n_comment


def _wide(values: tuple[int, int, int], extra: bytes) -> list[int]:
    """Replaces sizes and offsets that do not fit 32 bits by those of the extra field for them."""
    wide = b""
    while len(extra) >= 4 and not wide:
        kind, n = struct.unpack("<HH", extra[:4])
        wide, extra = extra[4 : 4 + n] if kind == 1 else b"", extra[4 + n :]
    found = []
    for value in values:
        if value == 0xFFFFFFFF:
            value, wide = struct.unpack("<Q", wide[:8])[0], wide[8:]
        found.append(value)
    return found
