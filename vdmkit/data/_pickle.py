# SPDX-License-Identifier: Apache-2.0
"""Reads the CIFAR pickles without executing them.

A pickle is a program that names functions and calls them. Here all names but five are refused, and these five are
replaced by classes of this file that only hold bytes, so that nothing in a pickle is executed. The unpickler is the one
in Python: that in C takes sixteen gigabytes for six bytes, a memo of that index, and does not count its steps.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vdmkit.errors import DataError
from vdmkit.io import MAX_PICKLE_FILE, MAX_PICKLE_OPERATIONS, TooMuch, check_at_most, read_at_most

_InPython: Any = pickle._Unpickler  # type: ignore[attr-defined]


def read_whole(path: Path) -> bytes:
    """Returns the contents of a file. Raises DataError if it is larger than a data set's file is."""
    try:
        return read_at_most(path, MAX_PICKLE_FILE)
    except TooMuch as error:
        raise DataError(f"{path}: {error}. Fetch the file anew.") from error


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
        value = _Unpickler(data).load()
        table = {_as_bytes(key): item for key, item in value.items()} if isinstance(value, dict) else None
    except Exception as error:  # a damaged pickle raises errors of many types
        raise DataError(
            f"{where}: not a pickle of plain arrays, lists, strings and numbers ({error}). Nothing in it was executed. "
            "Fetch the file anew from a source that you trust."
        ) from error
    if table is None:
        raise DataError(f"{where}: holds a {type(value).__name__}, expected a dictionary. Fetch the file anew.")
    return table


def _as_bytes(key: Any) -> Any:
    return key.encode() if isinstance(key, str) else key


def array_in(table: dict[bytes, Any], key: bytes, where: str) -> Shaped[np.ndarray, "..."]:
    """Returns the uint8 array at `key` of a dictionary of `read_pickle`. Raises DataError if it is missing."""
    array = getattr(table.get(key), "array", None)
    if array is None:
        raise DataError(f"{where}: no array of uint8 at key {key!r}. Fetch the file anew.")
    return array


class _Unpickler(_InPython):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.dispatch = _Counted(super().dispatch)
        del self.dispatch[pickle.BYTEARRAY8[0]]  # takes memory before it reads
        self._stand_ins = _STAND_INS | {("_codecs", "encode"): _Encode(len(data))}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._stand_ins[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


class _Counted(dict[int, Any]):
    """The unpickler's operations, of which it looks one up for each step."""

    steps = 0

    def __getitem__(self, code: int) -> Any:
        self.steps += 1
        check_at_most(MAX_PICKLE_OPERATIONS, self.steps, "operations of a pickle")
        return super().__getitem__(code)


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


class _Encode:
    """Replaces _codecs.encode, with which Python 3 writes bytes into pickles of protocol 2: each once."""

    def __init__(self, limit: int) -> None:
        self._limit, self._encoded = limit, 0

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
        self._encoded += len(text)
        check_at_most(self._limit, self._encoded, "bytes of text that it has once")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}
