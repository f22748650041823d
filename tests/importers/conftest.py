# SPDX-License-Identifier: Apache-2.0
"""Files as torch writes them, assembled from pickle operations because torch is not installed."""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

KINDS = {"float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "bool": "Bool"}
KINDS |= {"int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte"}
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
NO_HOOKS = b"\x89ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    """Returns the operation that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    """Returns the operation that pushes an int of any size."""
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def integers(values: tuple[int, ...]) -> bytes:
    """Returns the operations that push a tuple of ints."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key: str, dtype: str, count: int, view: bytes = b"") -> bytes:
    """Returns the operations that push a storage. `view` is N in files of torch before 1.6."""
    kind = f"ctorch\n{KINDS[dtype]}Storage\n".encode()
    return b"(" + text("storage") + kind + text(key) + text("cpu") + integer(count) + view + b"tQ"


def tensor(where: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """Returns the operations that push a tensor of the storage that `where` pushes."""
    return TENSOR + b"(" + where + integer(offset) + integers(shape) + integers(strides) + NO_HOOKS + b"tR"


def tensor_of(key: str, array: np.ndarray, view: bytes = b"") -> bytes:
    """Returns the operations that push a tensor with the array's shape and strides, in a storage of its own."""
    strides = tuple(n // array.itemsize for n in array.strides)
    return tensor(storage(key, array.dtype.name, array.size, view), array.shape, strides)


def dictionary(items: Mapping[str, bytes]) -> bytes:
    """Returns the operations that push a dictionary."""
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def torch_zip(path: Path, program: bytes, storages: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Writes a file of torch.save with this pickle, to which the protocol and the stop are added."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        file.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)
    return path


def torch_legacy(program: bytes, storages: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of torch.save before 1.6 with this pickle."""
    start = b"\x80\x02" + integer(0x1950A86A20F9469CFC6C) + b"." + b"\x80\x02M\xe9\x03."
    machine = b"\x80\x02" + dictionary({"little_endian": b"\x88"}) + b"."
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    numbers = (struct.pack("<q", array.size) + array.tobytes("A") for array in storages.values())
    return start + machine + b"\x80\x02" + program + b"." + keys + b"".join(numbers)


def edm_pickle(program: bytes) -> bytes:
    return b"\x80\x04" + program + b"."


def nested(data: bytes) -> bytes:
    """Returns the operations with which EDM's pickles read a torch file inside them."""
    return b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(data)) + data + b"\x85R"


def nested_tensor(array: np.ndarray) -> bytes:
    """Returns the operations that push a tensor as EDM's pickles contain it."""
    strides = tuple(n // array.itemsize for n in array.strides)
    inner = torch_legacy(storage("1", array.dtype.name, array.size, b"N"), {"1": array})
    return tensor(nested(inner), array.shape, strides)


def npz(path: Path, arrays: Mapping[str, np.ndarray], compression: int = zipfile.ZIP_STORED) -> Path:
    """Writes a file as numpy.savez does."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=True)
            file.writestr(f"{name}.npy", data.getvalue())
    return path


@pytest.fixture
def ops() -> SimpleNamespace:
    """All functions of this file, as a fixture."""
    return OPS


OPS = SimpleNamespace(
    NO_HOOKS=NO_HOOKS,
    TENSOR=TENSOR,
    text=text,
    integer=integer,
    integers=integers,
    storage=storage,
    tensor=tensor,
    tensor_of=tensor_of,
    dictionary=dictionary,
    torch_zip=torch_zip,
    torch_legacy=torch_legacy,
    edm_pickle=edm_pickle,
    nested=nested,
    nested_tensor=nested_tensor,
    npz=npz,
)
