# SPDX-License-Identifier: Apache-2.0
"""The header in binary: hashes as they are, and the other fields as short numbers, compressed by a fixed dictionary.

A header with other fields than the codec's, or with values of other types, has no such form; it is written as JSON.
"""

import json
import struct
import zlib
from itertools import accumulate, pairwise
from typing import Any

from vdmkit_codec.container._varint import Cursor, pack_signed, pack_unsigned

_DICTIONARY = (
    b'{"device":"1 x cpu","flags":"","processor":"x86_64 ","versions":"}jax 0.10.2, jaxlib 0.10.2, numpy 2.4.1'
)
_HASHES = {"model": 16, "tables": 8, "probe": 8}  # bytes
_KERNELS, _PROFILES, _WEIGHTS = ("gaussian", "mixture"), ("portable", "host"), ("ema", "raw")
_CHUNK, _CHECKPOINT, _TEXT = 8, 16, 32  # whether there is a chunk, a checkpoint, and one text of the machine
_PROBED = 4
_MOST = 1 << 22  # bytes, as of headers in JSON


def pack_fields(header: dict[str, Any]) -> bytes | None:
    """Returns the header in binary, or None if it would not be read back as it is."""
    try:
        packed = _pack(header)
        same = json.dumps(unpack_fields(packed), sort_keys=True) == json.dumps(header, sort_keys=True)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, OverflowError):
        return None
    return packed if same else None


def unpack_fields(data: bytes) -> dict[str, Any]:
    """Returns the header. Raises ValueError for data of another kind."""
    start = sum(_HASHES.values())
    machine = zlib.decompressobj(-15, _DICTIONARY)
    try:
        rest = machine.decompress(data[start:], _MOST + 1)
    except zlib.error as error:
        raise ValueError(f"it does not decompress ({error})") from error
    if len(rest) > _MOST or not machine.eof or machine.unused_data:
        raise ValueError("it does not end where it should")
    return _hashes(data[:start]) | _rest(Cursor(rest), data)


def _pack(header: dict[str, Any]) -> bytes:
    machine, probe = header["machine"], header["probe"]
    flags = _KERNELS.index(header["kernel"]) + 2 * _PROFILES.index(header["profile"])
    flags += _CHUNK * ("chunk" in header) + _CHECKPOINT * ("step" in header) + _TEXT * isinstance(machine, str)
    numbers = [*header["shape"], header["levels"], header["group"], header["seed"], *probe["offsets"]]
    if "chunk" in header:
        numbers.append(header["chunk"])
    if "step" in header:
        flags += 4 * _WEIGHTS.index(header["weights"])
        numbers.append(header["step"])
    text = machine if isinstance(machine, str) else json.dumps(machine, sort_keys=True, separators=(",", ":"))
    rest = bytes([flags]) + b"".join(map(pack_unsigned, numbers)) + struct.pack("<d", header["spacing"])
    rest += _pack_steps(header["gammas"]) + _pack_steps(header["log_errors"]) + text.encode()
    hashes = [header["model"], header["tables"], probe["sha256"]]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_DICTIONARY)
    return b"".join(map(bytes.fromhex, hashes)) + packer.compress(rest) + packer.flush()


def _pack_steps(values: list[int]) -> bytes:
    """Packs differences: those of even steps are zeros and ones."""
    steps = [second - first for first, second in pairwise([0, *values])]
    return pack_unsigned(len(values)) + b"".join(map(pack_signed, steps))


def _steps(cursor: Cursor) -> list[int]:
    return list(accumulate(cursor.signed() for _ in range(cursor.count())))


def _hashes(data: bytes) -> dict[str, Any]:
    ends = list(accumulate(_HASHES.values()))
    texts = [data[end - size : end].hex() for end, size in zip(ends, _HASHES.values(), strict=True)]
    return dict(zip(_HASHES, texts, strict=True))


def _rest(cursor: Cursor, data: bytes) -> dict[str, Any]:
    flags = cursor.bytes(1)[0]
    if flags >> 6:
        raise ValueError(f"flags {flags:#x}")
    shape, levels, group, seed = [cursor.unsigned() for _ in range(3)], *(cursor.unsigned() for _ in range(3))
    offsets = [cursor.unsigned() for _ in range(_PROBED)]
    found: dict[str, Any] = {"chunk": cursor.unsigned()} if flags & _CHUNK else {}
    if flags & _CHECKPOINT:
        found |= {"step": cursor.unsigned(), "weights": _WEIGHTS[flags >> 2 & 1]}
    (spacing,) = struct.unpack("<d", cursor.bytes(8))
    found |= {"shape": shape, "levels": levels, "group": group, "seed": seed, "spacing": spacing}
    found |= {"kernel": _KERNELS[flags & 1], "profile": _PROFILES[flags >> 1 & 1]}
    found |= {"gammas": _steps(cursor), "log_errors": _steps(cursor)}
    text = cursor.bytes(cursor.left).decode()
    found["machine"] = text if flags & _TEXT else json.loads(text)
    return found | {"probe": {"offsets": offsets, "sha256": _hashes(data)["probe"]}}
