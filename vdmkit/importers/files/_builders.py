# SPDX-License-Identifier: Apache-2.0
"""The globals that a checkpoint's pickle may ask for, and what is built in their place."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from vdmkit.importers.files._limits import Budget, Malformed
from vdmkit.importers.files._pickle import Builders, Instance, key_of
from vdmkit.importers.files._tensor import STORAGES, make_parameter, make_tensor

CONTAINERS = {f"torch.nn.modules.container.{name}" for name in ("ModuleDict", "ModuleList", "Sequential")}
CLASSES: dict[str, Callable[[], Any]] = {name: partial(Instance, name) for name in CONTAINERS}
CLASSES["dnnlib.util.EasyDict"] = dict

_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def builders(budget: Budget, more: Builders | None = None) -> Builders:
    """Returns the builders of torch files; `more` are those of another kind of file."""
    numpy = {"numpy.dtype": _dtype, "numpy.core.multiarray.scalar": _scalar, "numpy._core.multiarray.scalar": _scalar}
    plain = {f"{module}.{name}": make for module in ("builtins", "__builtin__") for name, make in _PLAIN.items()}
    return {
        "collections.OrderedDict": _ordered_dict,
        "torch._utils._rebuild_tensor": make_tensor,
        "torch._utils._rebuild_tensor_v2": make_tensor,
        "torch._utils._rebuild_parameter": make_parameter,
        "_codecs.encode": partial(_encode, budget),
        **dict.fromkeys(STORAGES),
        **numpy,
        **plain,
        **(more or {}),
    }


def _ordered_dict() -> dict[Any, Any]:
    return {}


def _set(items: object = ()) -> set[Any]:
    """Protocol 2 has no operation for sets."""
    if type(items) not in (list, tuple):
        raise Malformed("a set is not made of a list")
    return set(map(key_of, items))  # type: ignore[arg-type]


def _no_bytes() -> bytes:
    """Protocol 2 writes other bytes by `_codecs.encode`."""
    return b""


_PLAIN: dict[str, Callable[..., Any]] = {"set": _set, "bytes": _no_bytes}


def _encode(budget: Budget, text: object, encoding: object) -> bytes:
    """Python 3 writes bytes as text in pickles of protocol 2."""
    if not (type(text) is str and type(encoding) is str and encoding == "latin1"):
        raise Malformed("its pickle encodes something other than bytes")
    budget.spend_bytes(len(text))
    return text.encode("latin1")


def _dtype(code: object, *flags: object) -> np.dtype:
    if type(code) is not str or code not in _DTYPES:
        raise Malformed("its pickle has a number of a type that is not simple")
    return np.dtype(code).newbyteorder("<")


def _scalar(dtype: object, data: object) -> Any:
    if not (isinstance(dtype, np.dtype) and type(data) is bytes and len(data) == dtype.itemsize):
        raise Malformed("a number does not fit its type")
    return np.frombuffer(data, dtype)[0]
