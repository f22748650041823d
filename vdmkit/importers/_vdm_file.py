# SPDX-License-Identifier: Apache-2.0
"""Reads Flax's msgpack format without Flax: nested maps of arrays, with an extension type for arrays."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import msgpack
import numpy as np

from vdmkit.errors import CheckpointError
from vdmkit.paths import not_a_file

NDARRAY, COMPLEX, SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"


def read_flax(path: Path) -> dict[str, Any]:
    """Returns the nested map that `flax.serialization.to_bytes` wrote.

    Raises:
        CheckpointError: the file is missing, truncated or of another kind.
    """
    if reason := not_a_file(path):
        raise CheckpointError(f"{path}: {reason}. Give the ckpt-<n>.flax file.")
    try:
        content = _merge_chunks(msgpack.unpackb(path.read_bytes(), ext_hook=_decode))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Give the ckpt-<n>.flax file.") from error
    # For any bytes, parsing succeeds or raises one of these.
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise CheckpointError(
            f"{path}: is not a whole Flax msgpack file ({type(error).__name__}: {error}). Copy or download it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__} where a map of parameters was expected.")
    return content


def _decode(code: int, data: bytes) -> Any:
    if code == COMPLEX:
        return complex(*msgpack.unpackb(data))
    if code not in (NDARRAY, SCALAR):
        raise ValueError(f"unknown extension type {code}")
    shape, dtype, buffer = msgpack.unpackb(data, raw=True)
    array = np.frombuffer(buffer, jnp.dtype(dtype.decode())).reshape(shape)
    return array if code == NDARRAY else array[()]


def _merge_chunks(tree: Any) -> Any:
    """Joins arrays of more than 2^30 bytes, which Flax splits."""
    if not isinstance(tree, dict):
        return tree
    if _CHUNKED not in tree:
        return {name: _merge_chunks(child) for name, child in tree.items()}
    shape, chunks = (tree[key] for key in ("shape", "chunks"))
    whole = np.concatenate([chunks[str(i)] for i in range(len(chunks))])
    return whole.reshape([shape[str(i)] for i in range(len(shape))])
