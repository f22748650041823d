# SPDX-License-Identifier: Apache-2.0
"""Inspects a .vdmz file without the model that decodes it."""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from vdmkit.errors import CodecError
from vdmkit_codec.container._reader import Given, Reader, open_reader


@dataclass(frozen=True)
class Inspection:
    """The header of a file, and its bytes by purpose. "stacks" are the coded bits without the initial ones."""

    file: str
    images: int
    stored: int
    chunks: int
    named: bool
    header: dict[str, Any]
    bytes: dict[str, int]
    damaged: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        header, values = self.header, self.images * prod(self.header["shape"])
        size = "x".join(map(str, header["shape"]))
        lines = [
            f"{self.file}: {self.images:,} images of {size}, {header['levels']} levels; chunks: {self.chunks:,}",
            f"T = {len(header['gammas']) - 1} steps, kernel {header['kernel']}, profile {header['profile']}, "
            f"model {header['model']}",
            f"made with {_words(header['machine'])}",
            *(
                [f"stored as they are, since the model does not know them or would make them larger: {self.stored:,}"]
                if self.stored
                else []
            ),
            *([] if self.named else ["names of files: none"]),
            f"{'':30}{'bytes':>12}{'bits/dim':>12}",
        ]
        for name, count in (self.bytes | {"all": sum(self.bytes.values())}).items():
            lines.append(f"{name:30}{count:>12,}" + (f"{8 * count / values:>12.4f}" if values else ""))
        return "\n".join([*lines, *(f"{self.file}: {words}" for words in self.damaged)])


def _check_header(header: dict[str, Any]) -> None:
    """Raises CodecError if a field that is shown is missing."""
    kinds = {"shape": list, "levels": int, "kernel": str, "profile": str, "model": str, "machine": str | dict}
    wrong = [key for key, kind in (kinds | {"gammas": list}).items() if not isinstance(header.get(key), kind)]
    if wrong or not all(isinstance(size, int) and size > 0 for size in header["shape"]):
        raise CodecError(f"the header is not one of vdmkit's: {', '.join(wrong) or 'shape'}.")


def inspect(given: Given, *, salvage: bool = False, name: str = "the data") -> Inspection:
    """Reads a whole file.

    Raises:
        CodecError: its header is not one of vdmkit's; or it is damaged and `salvage` is false. With `salvage`, the
            result lists the damage.
    """
    with open_reader(given, salvage=salvage, name=name) as reader:
        _check_header(reader.header)
        parts, stored, damaged = _parts(reader, salvage)
        sizes = {**parts, "header, names, index, checksums": reader.bytes - sum(parts.values())}
        return Inspection(
            str(reader.path),
            reader.images,
            stored,
            len(reader.chunks),
            reader.names is not None,
            reader.header,
            sizes,
            damaged,
        )


def _words(machine: str | dict[str, Any]) -> str:
    return machine if isinstance(machine, str) else ", ".join(str(words) for words in machine.values() if words)


def _parts(reader: Reader, salvage: bool) -> tuple[dict[str, int], int, list[str]]:
    """Returns the bytes in chunks by purpose, the number of stored images, and descriptions of damage."""
    parts = {"stacks": 0, "first bits of stacks": 0, "room in heads": 0, "chunk headers, groups": 0}
    stored, damaged = 0, list(reader.damaged)
    for i, entry in enumerate(reader.chunks):
        try:
            payload = reader.payload(i)
        except CodecError as error:
            if not salvage:
                raise
            if not reader.tells(i):
                damaged.append(str(error).removeprefix(f"{reader.path}: "))
            continue
        unused = int((64 - np.log2(payload.heads.astype(float))).sum() / 8)
        first, stack = payload.initial_bits // 8, 8 * len(payload.heads) + 4 * len(payload.words)
        sizes = (stack - first - unused, first, unused, entry.length - stack)
        parts = {name: total + size for (name, total), size in zip(parts.items(), sizes, strict=True)}
        stored += int((payload.stored > 0).sum())
    return parts, stored, damaged
