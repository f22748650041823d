# SPDX-License-Identifier: Apache-2.0
"""Safetensors files: eight bytes that say how long a JSON header is, the header, and the numbers.

Read here and not by the package `safetensors`: the format takes fewer lines than the checks around a dependency would.
"""

import json
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from vdmkit.importers.files._bytes import FileBytes, expect_end
from vdmkit.importers.files._limits import Malformed, product, shown
from vdmkit.io import MAX_VALUES

_DTYPES = {"BOOL": np.dtype("?"), "BF16": jnp.dtype("bfloat16")}
_DTYPES |= {f"F{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)}
_DTYPES |= {f"{letter}{8 * n}": np.dtype(f"<{letter.lower()}{n}") for letter in "IU" for n in (1, 2, 4, 8)}
_LONGEST_HEADER = 100_000_000  # as the format says


def read_safetensors(file: BinaryIO, size: int) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns the arrays by their names. The metadata are text, and ignored."""
    source = FileBytes(file, size)
    header = _header(source)
    # The numbers of all tensors follow each other without gaps, so that they are read in the order of their offsets.
    ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
    arrays, n_numbers = {}, source.remaining
    for name, entry in ordered:
        arrays[name] = _array(source, name, entry, n_numbers - source.remaining)
    expect_end(source)
    return {name: arrays[name] for name in header}


def _header(source: FileBytes) -> dict[str, Any]:
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


def _array(source: FileBytes, name: str, entry: dict[str, Any], at: int) -> Shaped[np.ndarray, "..."]:
    dtype, shape = _DTYPES.get(str(entry.get("dtype"))), entry.get("shape")
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
