# SPDX-License-Identifier: Apache-2.0
"""Turns what a pickle built into plain containers of arrays, and EDM's persistent objects into their parts."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vdmkit.importers.files._limits import Malformed, shown
from vdmkit.importers.files._pickle import Instance, Name
from vdmkit.importers.files._tensor import Tensor
from vdmkit.io import MAX_DEPTH, MAX_VALUES

_SCALARS = (str, int, float, bool, bytes, type(None))


@dataclass(frozen=True)
class PersistentObject:
    """An object of EDM's pickles, such as a network, of which the source text in the file is not executed.

    Attributes:
        class_name: Such as "EDMPrecond".
        arguments: The constructor's positional arguments.
        keywords: The constructor's keyword arguments.
        attributes: Its plain attributes.
        tensors: Its own parameters and buffers.
        modules: Its submodules.
    """

    class_name: str
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, "PersistentObject"] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Returns the tensors of all modules under torch's names, such as model.enc.16x16_conv.weight."""
        found = dict(self.tensors)
        for name, module in self.modules.items():
            found |= {f"{name}.{inner}": tensor for inner, tensor in module.state_dict().items()}
        return found


def plain(value: Any) -> Any:
    """Returns a copy in which tensors are arrays. Raises Malformed for anything else that is not plain.

    What an object holds twice is there twice: sharing could make a small file endless.
    """
    return _Copy().of(value, 0)


class _Copy:
    def __init__(self) -> None:
        self._values = 0

    def of(self, value: Any, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise Malformed(f"it holds more than {MAX_VALUES:,} values, or containers deeper than {MAX_DEPTH}")
        kind = type(value)
        if kind in _SCALARS or isinstance(value, np.generic):
            return value
        if kind is dict:
            return {key: self.of(item, depth + 1) for key, item in value.items()}
        if kind in (list, tuple, set):
            return kind(self.of(item, depth + 1) for item in value)
        if kind is Tensor:
            return value.array()
        if kind is Instance:
            return self._object(value, depth)
        what = shown(value.text) if kind is Name else f"a {kind.__name__}"
        raise Malformed(f"it holds {what} in the place of a value")

    def _object(self, instance: Instance, depth: int) -> PersistentObject:
        state = instance.state
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise Malformed(f"an object of {shown(instance.class_name)} has no state by name")
        own = {name: value for name, value in state.items() if not name.startswith("_")}
        parts = {name: self.of(state.get(name) or {}, depth + 1) for name in ("_parameters", "_buffers", "_modules")}
        arguments, keywords = state.get("_init_args") or (), state.get("_init_kwargs") or {}
        if type(arguments) is not tuple or type(keywords) is not dict:
            raise Malformed(f"the arguments of {shown(instance.class_name)} are not plain")
        return PersistentObject(
            instance.class_name,
            self.of(arguments, depth + 1),
            self.of(keywords, depth + 1),
            self.of(own, depth + 1),
            _of_kind(parts["_parameters"] | parts["_buffers"], np.ndarray),
            _of_kind(parts["_modules"], PersistentObject),
        )


def _of_kind(items: Any, kind: type) -> dict[str, Any]:
    """Returns the items of a module's table; None stands for a parameter that it does without."""
    found = {name: item for name, item in items.items() if item is not None}
    if not all(type(name) is str and isinstance(item, kind) for name, item in found.items()):
        raise Malformed("a module's parameters, buffers or submodules are of another kind")
    return found
