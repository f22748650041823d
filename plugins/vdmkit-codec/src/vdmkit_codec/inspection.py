# SPDX-License-Identifier: Apache-2.0
"""Reads what a .vdmz file holds and where its bytes went, without the model or JAX."""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from vdmkit.errors import CodecError
from vdmkit_codec.container import Given, open_reader


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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        header, values = self.header, self.images * prod(self.header["shape"])
        size, machine = "x".join(map(str, header["shape"])), header["machine"]
        machine = machine if isinstance(machine, str) else ", ".join(str(fact) for fact in machine.values() if fact)
        lines = [
            f"{self.file}: {self.images:,} images of {size}, {header['levels']} levels; chunks: {self.chunks:,}",
            f"T = {len(header['gammas']) - 1} steps, kernel {header['kernel']}, profile {header['profile']}, "
            f"model {header['model']}",
            f"made with {machine}",
        ]
        if self.stored:
            lines += [f"stored uncompressed (smaller that way, or levels that the model lacks): {self.stored:,}"]
        if not self.named:
            lines += ["names of files: none"]
        lines += [f"{'':30}{'bytes':>12}{'bits/dim':>12}"]
        for name, count in (self.bytes | {"all": sum(self.bytes.values())}).items():
            lines += [f"{name:30}{count:>12,}" + (f"{8 * count / values:>12.4f}" if values else "")]
        return "\n".join(lines)


def inspect(given: Given, *, name: str = "the data") -> Inspection:
    """Reads a whole file. Raises CodecError if it is damaged, or its header is not one of vdmkit's."""
    with open_reader(given, name=name) as reader:
        _check_header(reader.header)
        parts = {"stacks": 0, "initial bits of stacks": 0, "unused bits of heads": 0, "chunk headers, groups": 0}
        stored = 0
        for i, entry in enumerate(reader.chunks):
            payload = reader.payload(i)
            unused = int((64 - np.log2(payload.heads.astype(float))).sum() / 8)
            first, stack = payload.initial_bits // 8, 8 * len(payload.heads) + 4 * len(payload.words)
            sizes = (stack - first - unused, first, unused, entry.end - entry.offset - stack)
            parts = {part: total + size for (part, total), size in zip(parts.items(), sizes, strict=True)}
            stored += int((payload.stored > 0).sum())
        rest = {"header, names, end": reader.bytes - sum(parts.values())}
        chunks, named = len(reader.chunks), reader.names is not None
        return Inspection(str(reader.path), reader.images, stored, chunks, named, reader.header, parts | rest)


def _check_header(header: dict[str, Any]) -> None:
    """Raises CodecError if a field that is shown is missing."""
    kinds = {"shape": list, "levels": int, "kernel": str, "profile": str, "model": str, "machine": str | dict}
    wrong = [key for key, kind in (kinds | {"gammas": list}).items() if not isinstance(header.get(key), kind)]
    if wrong or not all(isinstance(size, int) and size > 0 for size in header["shape"]):
        raise CodecError(f"the header is not one of vdmkit's: {', '.join(wrong) or 'shape'}.")
