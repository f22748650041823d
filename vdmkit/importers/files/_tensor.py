# SPDX-License-Identifier: Apache-2.0
"""Tensors as torch writes them: views, by offset and strides, of storages that several tensors may share."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from vdmkit.importers.files._limits import Malformed, product

STORAGES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": jnp.dtype("bfloat16"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}


@dataclass(eq=False)
class Storage:
    """`count` numbers in a row. The bytes of old torch files come after the pickle that uses them."""

    dtype: np.dtype
    count: int
    data: Any = None

    @property
    def n_bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> Shaped[np.ndarray, "..."]:
        """Returns the view as an array, without a copy. Raises Malformed if any of it lies outside its storage."""
        size = product(self.shape)
        product(self.strides)
        if len(self.strides) != len(self.shape) or type(self.offset) is not int or self.offset < 0:
            raise Malformed("a tensor's offset or strides do not fit its shape")
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        # More elements than the storage has are repeated by strides of 0: a small file would claim a huge tensor.
        if size and (last >= self.storage.count or size > self.storage.count):
            raise Malformed(f"a tensor of shape {self.shape} exceeds its storage of {self.storage.count:,} numbers")
        if self.storage.data is None:
            raise Malformed("a tensor's storage is missing")
        if not size:
            return np.empty(self.shape, self.storage.dtype)
        width = self.storage.dtype.itemsize
        strides = tuple(width * stride for stride in self.strides)
        return np.ndarray(self.shape, self.storage.dtype, self.storage.data, width * self.offset, strides)


def make_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *ignored: object) -> Tensor:
    """Stands for torch._utils._rebuild_tensor_v2, whose other arguments are requires_grad and hooks."""
    if not (isinstance(storage, Storage) and type(offset) is int and type(shape) is type(strides) is tuple):
        raise Malformed("a tensor is not made of a storage, an offset, a shape and strides")
    return Tensor(storage, offset, shape, strides)


def make_parameter(tensor: object, *ignored: object) -> Tensor:
    """Stands for torch._utils._rebuild_parameter."""
    if not isinstance(tensor, Tensor):
        raise Malformed("a parameter is not made of a tensor")
    return tensor


def storage_of(identifier: object, length: int) -> tuple[str, Storage]:
    """Returns the key, and the storage still without data, that a persistent id of `length` parts describes.

    A part is "storage", and then follow its type, its key, its device and its number of elements.
    """
    if not (type(identifier) is tuple and len(identifier) == length):
        raise Malformed("a persistent id is not one of a storage")
    tag, kind, key, _, count = identifier[:5]
    dtype = STORAGES.get(getattr(kind, "text", ""))
    if not (type(tag) is str and tag == "storage" and dtype and type(key) is str):
        raise Malformed("a persistent id is not one of a storage")
    return key, Storage(dtype, product((count,)))
