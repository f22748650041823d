# SPDX-License-Identifier: Apache-2.0
"""Reads the CIFAR pickles without executing them.

A pickle is a program that names functions and calls them. Here all names but five are refused, and these five are
replaced by classes of this file that only hold bytes, so that nothing in a pickle is executed.
"""

import io
import pickle
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vdmkit.errors import DataError


def read_pickle(data: bytes, where: str) -> dict[bytes, Any]:
    """Returns the dictionary in a Python 2 or 3 pickle of uint8 arrays, lists, strings and numbers.

    Keys are `bytes`, as strings of Python 2 are; arrays are found with `array_in`.

    Args:
        data: The pickle.
        where: Name of the pickle in error messages.

    Raises:
        DataError: the pickle is damaged, asks for anything else, or is not a dictionary.
    """
    try:
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises errors of many types
        raise DataError(
            f"{where}: not a pickle of plain arrays, lists, strings and numbers ({error}). Nothing in it was executed. "
            "Fetch the file anew from a source that you trust."
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds a {type(value).__name__}, expected a dictionary. Fetch the file anew.")
    return {key.encode() if isinstance(key, str) else key: item for key, item in value.items()}


def array_in(table: dict[bytes, Any], key: bytes, where: str) -> Shaped[np.ndarray, "..."]:
    """Returns the uint8 array at `key` of a dictionary of `read_pickle`. Raises DataError if it is missing."""
    array = getattr(table.get(key), "array", None)
    if array is None:
        raise DataError(f"{where}: no array of uint8 at key {key!r}. Fetch the file anew.")
    return array


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


# Each stand-in defines __setstate__, because pickle sets any attribute on an object that has none.


class _Dtype:
    """Replaces numpy.dtype. Only uint8 is read, so the state (byte order, alignment) is ignored."""

    def __init__(self, code: object, *flags: object) -> None:
        self.is_uint8 = code in ("u1", b"u1")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Replaces numpy.ndarray, and the function that pickles call to make an empty one."""

    def __init__(self, *ignored: object) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, data = state
        if not (isinstance(dtype, _Dtype) and isinstance(data, bytes)):
            raise pickle.UnpicklingError("it holds an array of objects")
        if not dtype.is_uint8:
            return  # such as the mean image beside ImageNet's pixels
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _Bytes:
    """Replaces _codecs.encode, with which Python 3 writes bytes into pickles of protocol 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _Bytes,
}
