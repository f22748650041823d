# SPDX-License-Identifier: Apache-2.0
"""The head of a .vdmz file: magic, version, flags, and the header, a JSON object. Its SHA-256 is the file's id."""

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vdmkit.errors import CodecError
from vdmkit_codec.container._fields import pack_fields, unpack_fields
from vdmkit_codec.container._source import Source

MAGIC = b"VDMZ"
VERSION = 2
_IN_BINARY, _IS_SMALL = 1, 2  # flags
_FLAGS = {1: 0, 2: _IN_BINARY | _IS_SMALL}  # the most that a version has
_PRELUDE = struct.Struct("<4sHHI")  # magic, version, flags, length of the compressed header
_CRC = struct.Struct("<I")
_MAX_HEADER = 1 << 22  # bytes, compressed or not; a header of 1,000 layers has about 2^18


@dataclass(frozen=True)
class Head:
    """The header, and the bytes of the whole head."""

    header: dict[str, Any]
    raw: bytes
    version: int = VERSION
    small: bool = False

    @cached_property
    def file_id(self) -> bytes:
        """Returns 32 bytes that enter every checksum after the head, so that an edited header is detected."""
        return hashlib.sha256(self.raw).digest()


def make_head(header: dict[str, Any], *, small: bool = False) -> Head:
    """Makes the head of a new file.

    Raises:
        ValueError: The header is not a JSON object (NaN is not JSON), or larger than readers accept.
    """
    text = canonical_json(header)
    binary = pack_fields(header)
    data = zlib.compress(text, 9) if binary is None else binary
    if max(len(text), len(data)) > _MAX_HEADER:
        raise ValueError(f"a header of {len(text)} bytes; at most {_MAX_HEADER} are read")
    flags = _IN_BINARY * (binary is not None) + _IS_SMALL * small
    raw = _PRELUDE.pack(MAGIC, VERSION, flags, len(data)) + data
    return Head(json.loads(text), raw + _CRC.pack(zlib.crc32(raw)), VERSION, small)


def read_head(source: Source, start: int = 0) -> Head:
    """Reads the head that begins at `start`.

    Raises:
        CodecError: The head is missing, damaged, truncated, or of a newer version.
    """
    path = source.path
    prelude = source.read(start, min(_PRELUDE.size, source.size - start))
    if not prelude or not MAGIC.startswith(prelude[:4]):
        found = f"begins with {prelude[:4]!r}, not with {MAGIC!r}" if prelude else "is empty"
        raise CodecError(f"{path}: is not a .vdmz file: it {found}. Give a file that `vdmkit compress` wrote.")
    if len(prelude) < _PRELUDE.size:
        raise source.fault(f"was cut short within its header, to {source.size} bytes")
    _, version, flags, length = _PRELUDE.unpack(prelude)
    if version > VERSION or flags > _FLAGS.get(version, 0):
        raise CodecError(
            f"{path}: has format version {version} with flags {flags:#x}; this vdmkit-codec reads versions "
            f"1 to {VERSION}. A newer version wrote it: update vdmkit. (Or its first bytes are damaged: try --salvage.)"
        )
    if version < 1 or length > _MAX_HEADER:
        raise source.fault(f"its header is damaged: version {version}, {length} bytes")
    total = _PRELUDE.size + length + _CRC.size
    if start + total > source.size:
        raise source.fault(
            f"was cut short within its header, or that is damaged: {total} bytes are expected, "
            f"{source.size - start} found"
        )
    raw = source.read(start, total)
    if _CRC.unpack(raw[-_CRC.size :]) != (zlib.crc32(raw[: -_CRC.size]),):
        raise source.fault("its header is damaged: its checksum does not hold")
    try:
        data = raw[_PRELUDE.size : -_CRC.size]
        header = unpack_fields(data) if flags & _IN_BINARY else parse_json(data, _MAX_HEADER)
    except ValueError as error:
        raise CodecError(f"{path}: its header cannot be read: {error}. It was not written by vdmkit.") from error
    if not isinstance(header, dict):
        raise CodecError(f"{path}: its header is not a JSON object. It was not written by vdmkit.")
    return Head(header, raw, version, bool(flags & _IS_SMALL))


def canonical_json(value: Any) -> bytes:
    """Returns the canonical JSON text of a value, in ASCII, so that file names that are not UTF-8 survive.

    Raises:
        ValueError: The value has a NaN or an infinity, which are not JSON.
    """
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def parse_json(data: bytes, cap: int) -> Any:
    """Returns the value of compressed JSON. At most `cap` bytes are decompressed.

    Raises:
        ValueError: The text is larger, damaged, or not JSON.
    """
    try:
        return json.loads(decompressed(data, cap), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def decompressed(data: bytes, cap: int) -> bytes:
    """Returns at most `cap` bytes that `zlib` compressed. Raises ValueError if there are more, or they are damaged."""
    machine = zlib.decompressobj()
    try:
        text = machine.decompress(data, cap + 1)
    except zlib.error as error:
        raise ValueError(f"it does not decompress ({error})") from error
    if len(text) > cap:
        raise ValueError(f"it is larger than {cap} bytes")
    if not machine.eof or machine.unused_data:
        raise ValueError("it does not end where it should")
    return text


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
