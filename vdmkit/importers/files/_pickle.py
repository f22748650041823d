# SPDX-License-Identifier: Apache-2.0
"""Reads pickles with a machine of its own, in which nothing can be called but the builders of a table.

A pickle is a program. Python's unpickler sets attributes of any object, hashes tuples so deep that the process crashes,
and lets a number in the file decide on the size of its memo. This one knows only the operations that torch and EDM use,
on plain containers and on what the builders make. `pickletools` splits the bytes into operations.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vdmkit.importers.files._bytes import Bytes
from vdmkit.importers.files._limits import Budget, Malformed, shown
from vdmkit.io import MAX_OPERATIONS

Builders = Mapping[str, Callable[..., Any] | None]
"""What each global of a pickle, "module.name", stands for; None if the pickle may only name it."""


@dataclass(frozen=True, eq=False)
class Name:
    """A global that a pickle asked for."""

    text: str


@dataclass(eq=False)
class Instance:
    """An object that a pickle made of a class without calling it, and the state that it set."""

    class_name: str
    state: Any = None


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_ARGUMENTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_ARGUMENTS |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, bool, bytes, type(None))  # hashing a deep tuple would overflow C's stack
_LARGEST_KEY = 2**31  # larger numbers can be chosen to share a hash


@dataclass
class Unpickler:
    """Runs one pickle.

    Attributes:
        source: Where the pickle is; it is left behind the pickle's end.
        budget: What the file may still ask for.
        builders: The globals that the pickle may name.
        classes: The globals of which it may make an `Instance`, or of which an empty object is made.
        storage: Makes what a persistent id stands for.
    """

    source: Bytes
    budget: Budget
    builders: Builders = field(default_factory=dict)
    classes: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    storage: Callable[[object], Any] | None = None
    _stack: list[Any] = field(default_factory=list)
    _memo: dict[int, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """Returns what the pickle builds. Raises Malformed, or ValueError for bytes that pickle never wrote."""
        for operation, argument, _ in pickletools.genops(self.source):  # type: ignore[arg-type]
            self.budget.operations -= 1
            if self.budget.operations < 0:
                raise Malformed(f"its pickles have more than {MAX_OPERATIONS:,} operations")
            self._run(operation.name, argument)
        result = self._pop()
        if self._stack:
            raise Malformed("its pickle leaves more than one object")
        return result

    def _run(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _ARGUMENTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(self._last(_TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif run := _OPERATIONS.get(name):
            run(self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise Malformed(f"its pickle has the operation {name}, which no checkpoint needs")

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise Malformed("its pickle uses an object before there is one")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _last(self, n: int) -> list[Any]:
        items = self._stack[-n:]
        if len(items) < n or any(item is _MARK for item in items):
            raise Malformed("its pickle uses an object before there is one")
        del self._stack[-n:]
        return items

    def _to_mark(self) -> list[Any]:
        items = []
        while self._stack:
            item = self._stack.pop()
            if item is _MARK:
                return items[::-1]
            items.append(item)
        raise Malformed("its pickle uses a mark before there is one")

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._top())

    def _discard(self, _: Any) -> None:
        self._stack.pop()

    def _global(self, text: str) -> None:
        self._name(text.replace(" ", ".", 1))

    def _stack_global(self, _: Any) -> None:
        module, name = self._last(2)
        if not (type(module) is type(name) is str):
            raise Malformed("its pickle asks for a global without a name")
        self._name(f"{module}.{name}")

    def _name(self, text: str) -> None:
        if text not in self.builders and text not in self.classes:
            raise Malformed(
                f"its pickle asks for {shown(text)}, and a checkpoint needs nothing but tensors and plain containers "
                "(of a whole model, save the state_dict())"
            )
        self._stack.append(Name(text))

    def _reduce(self, _: Any) -> None:
        function, arguments = self._last(2)
        build = self.builders.get(function.text) if type(function) is Name else None
        if build is None or type(arguments) is not tuple:
            raise Malformed("its pickle calls something that is not a builder of tensors")
        self._stack.append(build(*arguments))

    def _new(self, _: Any) -> None:
        kind, arguments = self._last(2)
        make = self.classes.get(kind.text) if type(kind) is Name else None
        if make is None or type(arguments) is not tuple or arguments:
            raise Malformed("its pickle makes an object of a class that is not a container")
        self._stack.append(make())

    def _build(self, _: Any) -> None:
        state = self._pop()
        target = self._top()
        if type(target) is Instance:
            target.state = state
        elif isinstance(target, np.dtype):
            _check_dtype_state(state)
        elif type(target) is not dict:  # torch sets `_metadata` of a state dict, which holds no tensors
            raise Malformed("its pickle sets the state of an object that has none")

    def _append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise Malformed("its pickle appends to an object that is not a list")
        target.extend(items)

    def _set_item(self, _: Any) -> None:
        self._update(self._last(2))

    def _set_items(self, _: Any) -> None:
        self._update(self._to_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise Malformed("its pickle sets items of an object that is not a dictionary")
        target.update(zip(map(key_of, items[::2]), items[1::2], strict=True))

    def _add_items(self, _: Any) -> None:
        items = self._to_mark()
        target = self._top()
        if type(target) is not set:
            raise Malformed("its pickle adds to an object that is not a set")
        target.update(map(key_of, items))

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _persistent(self, _: Any) -> None:
        if self.storage is None:
            raise Malformed("its pickle asks for a storage, and there is none in such a file")
        self._stack.append(self.storage(self._pop()))


_OPERATIONS: dict[str, Callable[[Unpickler, Any], None]] = {
    "MEMOIZE": Unpickler._memoize,
    "DUP": Unpickler._duplicate,
    "POP": Unpickler._discard,
    "GLOBAL": Unpickler._global,
    "STACK_GLOBAL": Unpickler._stack_global,
    "REDUCE": Unpickler._reduce,
    "NEWOBJ": Unpickler._new,
    "BUILD": Unpickler._build,
    "APPEND": Unpickler._append,
    "APPENDS": Unpickler._appends,
    "SETITEM": Unpickler._set_item,
    "SETITEMS": Unpickler._set_items,
    "ADDITEMS": Unpickler._add_items,
    "TUPLE": Unpickler._tuple,
    "BINPERSID": Unpickler._persistent,
}


def key_of(value: Any) -> Any:
    """Returns a key of a dictionary or an element of a set. Raises Malformed unless it is a plain value."""
    if type(value) not in _KEYS or (type(value) is int and abs(value) > _LARGEST_KEY):
        raise Malformed("a key or an element of a set is not plain")
    return value


def _check_dtype_state(state: Any) -> None:
    if not (type(state) is tuple and len(state) > 1 and type(state[1]) is str and state[1] in "<|="):
        raise Malformed("a number has another byte order than this machine")
