# SPDX-License-Identifier: Apache-2.0
"""Msgpack as Flax writes it, read without copying its arrays: the package `msgpack` would hold each of them twice."""

import struct
from collections.abc import Callable
from typing import Any

from vdmkit.importers.files._bytes import Bytes, expect_end
from vdmkit.importers.files._limits import Malformed, shown
from vdmkit.io import MAX_DEPTH, MAX_VALUES

_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(enumerate((">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), start=0xCA))
_LENGTHS = {0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4)}
_LENGTHS |= {0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4)}
_LENGTHS |= {0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4), 0xDC: ("list", 2), 0xDD: ("list", 4)}
_LENGTHS |= {0xDE: ("map", 2), 0xDF: ("map", 4)}


class Unpacker:
    """Reads one value; `extension` makes something of an extension type's number and bytes.

    Each array of a file has bytes of its own, so that they are released with it.
    """

    def __init__(self, source: Bytes, extension: Callable[[int, bytes | memoryview], Any]) -> None:
        self._source, self._extension, self._values = source, extension, 0

    def read(self) -> Any:
        """Returns the value, of which nothing follows. Raises Malformed."""
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
