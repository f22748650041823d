# SPDX-License-Identifier: Apache-2.0
"""The containers of checkpoint files: zip archives and .npz, safetensors, and Flax's msgpack.

Sizes that a file declares are checked before memory is allocated for them.
"""

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped, UInt8

from vdmkit.io import MAX_DEPTH, MAX_DIMENSIONS, MAX_VALUES


class Malformed(Exception):
    """A malformed file; the message is printed after the file's name and a colon."""


def shown(text: str) -> str:
    """Returns a name from a file in printable form: at most 200 characters, without terminal control characters."""
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

    Raises Malformed if it is truncated, or has duplicate entries, overlapping entries, or names that lead out of it.
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
        """Returns the bytes of an entry, which must be `n_bytes` if given."""
        if (entry := self._entries.get(name)) is None:
            raise Malformed(f"it has no entry {shown(name)}")
        if n_bytes is not None and entry.n_bytes != n_bytes:
            raise Malformed(f"entry {shown(name)} has {entry.n_bytes:,} bytes where {n_bytes:,} are expected")
        start = self._start(name, entry)
        data = self._inflated(entry, start) if entry.compressed else self._at(start, entry.n_stored)
        if zlib.crc32(data) != entry.crc:
            raise Malformed(f"entry {shown(name)} is damaged: its checksum differs")
        return np.frombuffer(data, np.uint8)

    def _start(self, name: str, entry: Entry) -> int:
        """Returns the offset of an entry's bytes, after its local header, which repeats the name."""
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
    """Replaces sizes and offsets that do not fit into 32 bits by the 64-bit values in the extra field."""
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


def read_npz(archive: Archive) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns the arrays by their names."""
    return {name.removesuffix(".npy"): _npz_array(archive, name) for name in archive.names}


def _npz_array(archive: Archive, name: str) -> Shaped[np.ndarray, "..."]:
    data = archive.read(name)
    head = io.BytesIO(data[:20_000].tobytes())
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise Malformed(f"array {shown(name)} is of a version of numpy's format that is not read")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if dtype.kind not in "biuf":
        raise Malformed(f"array {shown(name)} holds {dtype}, not numbers")
    if product(shape) * dtype.itemsize != len(data) - head.tell():
        raise Malformed(f"array {shown(name)} does not have the {product(shape):,} numbers of its shape")
    array = np.frombuffer(data[head.tell() :], dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


_LONGEST_LINE = 1000  # a pickle's globals are lines


class FileBytes:
    """The `size` bytes of an open file. Checks the size first: `file.read(n)` allocates n bytes for any n."""

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


_SAFETENSORS_DTYPES = {"BOOL": np.dtype("?"), "BF16": jnp.dtype("bfloat16")}
_SAFETENSORS_DTYPES |= {f"F{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)}
_SAFETENSORS_DTYPES |= {f"{letter}{8 * n}": np.dtype(f"<{letter.lower()}{n}") for letter in "IU" for n in (1, 2, 4, 8)}
_LONGEST_HEADER = 100_000_000  # the limit of the format


def read_safetensors(file: BinaryIO, size: int) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns the arrays by their names. The metadata are text, and ignored."""
    source = FileBytes(file, size)
    header = _safetensors_header(source)
    # The format stores the tensors without gaps, so they are read in the order of their offsets.
    ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
    arrays, n_numbers = {}, source.remaining
    for name, entry in ordered:
        arrays[name] = _safetensors_array(source, name, entry, n_numbers - source.remaining)
    expect_end(source)
    return {name: arrays[name] for name in header}


def _safetensors_header(source: FileBytes) -> dict[str, Any]:
    n = int.from_bytes(source.read(8), "little")
    if n > _LONGEST_HEADER:
        raise Malformed(f"its header claims {n:,} bytes")
    header = json.loads(source.read(n), object_pairs_hook=_without_duplicates)
    if not isinstance(header, dict) or len(header) > MAX_VALUES:
        raise Malformed("its header does not list tensors")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)):
            raise Malformed(f"tensor {shown(name)} has no offsets")
    return header


def _safetensors_array(source: FileBytes, name: str, entry: dict[str, Any], at: int) -> Shaped[np.ndarray, "..."]:
    dtype, shape = _SAFETENSORS_DTYPES.get(str(entry.get("dtype"))), entry.get("shape")
    if dtype is None or not isinstance(shape, list):
        raise Malformed(f"tensor {shown(name)} has no shape, or is of type {shown(str(entry.get('dtype')))}")
    n_bytes = product(tuple(shape)) * dtype.itemsize
    if entry["data_offsets"] != [at, at + n_bytes]:
        raise Malformed(f"tensor {shown(name)} of shape {tuple(shape)} does not fit its offsets")
    return np.frombuffer(source.take(n_bytes), dtype).reshape(shape)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("its header has a name twice")
    return found


NDARRAY, COMPLEX, SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_FLAX_DTYPES = {"bool", "bfloat16", "float16", "float32", "float64"}
_FLAX_DTYPES |= {f"{sign}int{8 * n}" for sign in ("", "u") for n in (1, 2, 4, 8)}


def read_flax(file: BinaryIO, size: int) -> dict[str, Any]:
    """Returns the nested map that `flax.serialization.to_bytes` wrote. Raises Malformed."""
    content = _merge_chunks(Unpacker(FileBytes(file, size), _decode).read())
    if not isinstance(content, dict):
        raise Malformed(f"it holds a {type(content).__name__} where a map of parameters is expected")
    return content


def _decode(code: int, data: bytes | memoryview) -> Any:
    if code not in (NDARRAY, COMPLEX, SCALAR):
        raise Malformed(f"it has the unknown extension type {code}")
    parts = Unpacker(MemoryBytes(data), _no_extension).read()
    if code == COMPLEX:
        return complex(*parts)
    array = _flax_array(*parts)
    return array if code == NDARRAY else array[()]


def _no_extension(code: int, data: bytes | memoryview) -> Any:
    raise Malformed("an array of it holds an extension type")


def _flax_array(shape: Any, dtype: Any, buffer: Any) -> Shaped[np.ndarray, "..."]:
    name = str(dtype, "ascii") if isinstance(dtype, memoryview) else dtype
    if name not in _FLAX_DTYPES or not isinstance(buffer, memoryview):
        raise Malformed(f"an array is not one, or is of {shown(str(name))}")
    found = np.frombuffer(buffer, jnp.dtype(name))
    if product(tuple(shape)) != found.size:
        raise Malformed(f"an array of shape {tuple(shape)} has {found.size:,} numbers")
    return found.reshape(shape)


def _merge_chunks(tree: Any) -> Any:
    """Joins arrays of more than 2^30 bytes, which Flax splits."""
    if not isinstance(tree, dict):
        return tree
    if _CHUNKED not in tree:
        return {name: _merge_chunks(child) for name, child in tree.items()}
    shape, chunks = (tree[key] for key in ("shape", "chunks"))
    whole = np.concatenate([chunks[str(i)] for i in range(len(chunks))])
    return whole.reshape([shape[str(i)] for i in range(len(shape))])


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(enumerate((">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), start=0xCA))
_LENGTHS = {0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4)}
_LENGTHS |= {0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4)}
_LENGTHS |= {0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4), 0xDC: ("list", 2), 0xDD: ("list", 4)}
_LENGTHS |= {0xDE: ("map", 2), 0xDF: ("map", 4)}


class Unpacker:
    """Reads one msgpack value; `extension` decodes an extension type from its number and bytes.

    Each array has its own copy of its bytes, so that they are released with it.
    """

    def __init__(self, source: Bytes, extension: Callable[[int, bytes | memoryview], Any]) -> None:
        self._source, self._extension, self._values = source, extension, 0

    def read(self) -> Any:
        """Returns the value. Raises Malformed if it is damaged, or bytes follow it."""
        value = self._value(0)
        expect_end(self._source)
        return value

    def _value(self, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise Malformed(f"it holds more than {MAX_VALUES:,} values, or containers deeper than {MAX_DEPTH}")
        code = self._source.take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            form = _NUMBERS[code]
            return struct.unpack(form, self._source.take(struct.calcsize(form)))[0]
        return self._sized(*self._kind(code), depth)

    def _kind(self, code: int) -> tuple[str, int]:
        if code < 0xC0:
            kind = "map" if code < 0x90 else "list" if code < 0xA0 else "str"
            return kind, code & (0x1F if kind == "str" else 0x0F)
        if 0xD4 <= code <= 0xD8:
            return "ext", 1 << (code - 0xD4)
        if code not in _LENGTHS:
            raise Malformed("it is not msgpack")
        kind, width = _LENGTHS[code]
        return kind, int.from_bytes(self._source.take(width), "big")

    def _sized(self, kind: str, n: int, depth: int) -> Any:
        if kind == "str":
            return str(self._source.take(n), "utf-8")
        if kind == "bin":
            return self._source.take(n)
        if kind == "ext":
            code = self._source.take(1)[0]
            return self._extension(code, self._source.take(n))
        if kind == "list":
            return [self._value(depth + 1) for _ in range(n)]
        return self._map(n, depth)

    def _map(self, n: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(n):
            key = self._value(depth + 1)
            if type(key) is not str or key in found:
                raise Malformed("a key of a map is no text" if type(key) is not str else f"{shown(key)} is there twice")
            found[key] = self._value(depth + 1)
        return found
