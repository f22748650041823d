# SPDX-License-Identifier: Apache-2.0
"""Reads Flax's msgpack format without Flax: nested maps of arrays, with an extension type for arrays."""

from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from vdmkit.importers.files._bytes import FileBytes, MemoryBytes
from vdmkit.importers.files._limits import Malformed, product, shown
from vdmkit.importers.files._msgpack import Unpacker

NDARRAY, COMPLEX, SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = {"bool", "bfloat16", "float16", "float32", "float64"}
_DTYPES |= {f"{sign}int{8 * n}" for sign in ("", "u") for n in (1, 2, 4, 8)}


def read_flax(file: BinaryIO, size: int) -> dict[str, Any]:
    """Returns the nested map that `flax.serialization.to_bytes` wrote. Raises Malformed."""
    content = _merge_chunks(Unpacker(FileBytes(file, size), _decode).read())
    if not isinstance(content, dict):
        raise Malformed(f"it holds a {type(content).__name__} where a map of parameters is expected")
    return content


def _decode(code: int, data: bytes | memoryview) -> Any:
    if code not in (NDARRAY, COMPLEX, SCALAR):
        raise Malformed(f"it has the unknown extension type {code}")
    parts = Unpacker(MemoryBytes(data), _refuse).read()
    if code == COMPLEX:
        return complex(*parts)
    array = _array(*parts)
    return array if code == NDARRAY else array[()]


def _refuse(code: int, data: bytes | memoryview) -> Any:
    raise Malformed("an array of it holds an extension type")


def _array(shape: Any, dtype: Any, buffer: Any) -> Shaped[np.ndarray, "..."]:
    name = str(dtype, "ascii") if isinstance(dtype, memoryview) else dtype
    if name not in _DTYPES or not isinstance(buffer, memoryview):
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
