# SPDX-License-Identifier: Apache-2.0
"""Pickles of torch and EDM, read without executing anything.

A pickle is a program. Python's unpickler sets attributes of any object, crashes on hashing deeply nested tuples, and
allocates a memo as large as a number in the file. `Unpickler` supports only the operations that torch and EDM use, on
plain containers and on what the builders of a table make. `pickletools` splits the bytes into operations.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from vdmkit.importers.containers import Archive, Bytes, FileBytes, Malformed, MemoryBytes, expect_end, product, shown
from vdmkit.io import MAX_DEPTH, MAX_OPERATIONS, MAX_VALUES


class Budget:
    """Operations and bytes that a file may still use. Nested pickles share the budget of the outer one."""

    def __init__(self, n_bytes: int) -> None:
        self.operations, self._bytes = MAX_OPERATIONS, n_bytes

    def spend_bytes(self, n_bytes: int) -> None:
        """Counts bytes that are read or copied a second time, which no genuine file does more than once."""
        self._bytes -= n_bytes
        if self._bytes < 0:
            raise Malformed("its pickles copy more bytes than it has")


Builders = Mapping[str, Callable[..., Any] | None]
"""What replaces each global of a pickle, "module.name"; None if the pickle may only name it."""


@dataclass(frozen=True, eq=False)
class Name:
    """A global named by a pickle."""

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
        source: Bytes that start with the pickle; afterwards positioned at its end.
        budget: Operations and bytes that the file may still use.
        builders: The globals that the pickle may name.
        classes: The classes that it may instantiate, as an `Instance` or as an empty object.
        storage: Makes the storage that a persistent id describes.
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
            raise Malformed("its pickle names a global that is not text")
        self._name(f"{module}.{name}")

    def _name(self, text: str) -> None:
        if text not in self.builders and text not in self.classes:
            raise Malformed(
                f"its pickle refers to {shown(text)}, and a checkpoint needs nothing but tensors and plain containers "
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
            raise Malformed("its pickle refers to a storage, and such files have no storages")
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
    """A buffer of `count` numbers. In old torch files its bytes come after the pickle that uses them."""

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
        # With strides of 0 a view has more elements than its storage, so a small file could declare a huge tensor.
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
    """Replaces torch._utils._rebuild_tensor_v2, whose other arguments are requires_grad and hooks."""
    if not (isinstance(storage, Storage) and type(offset) is int and type(shape) is type(strides) is tuple):
        raise Malformed("a tensor is not made of a storage, an offset, a shape and strides")
    return Tensor(storage, offset, shape, strides)


def make_parameter(tensor: object, *ignored: object) -> Tensor:
    """Replaces torch._utils._rebuild_parameter."""
    if not isinstance(tensor, Tensor):
        raise Malformed("a parameter is not made of a tensor")
    return tensor


def storage_of(identifier: object, length: int) -> tuple[str, Storage]:
    """Returns the key and the storage, still without data, that a persistent id of `length` parts describes.

    The parts are "storage", its type, its key, its device and its number of elements.
    """
    if not (type(identifier) is tuple and len(identifier) == length):
        raise Malformed("a persistent id is not one of a storage")
    tag, kind, key, _, count = identifier[:5]
    dtype = STORAGES.get(getattr(kind, "text", ""))
    if not (type(tag) is str and tag == "storage" and dtype and type(key) is str):
        raise Malformed("a persistent id is not one of a storage")
    return key, Storage(dtype, product((count,)))


CONTAINERS = {f"torch.nn.modules.container.{name}" for name in ("ModuleDict", "ModuleList", "Sequential")}
CLASSES: dict[str, Callable[[], Any]] = {name: partial(Instance, name) for name in CONTAINERS}
CLASSES["dnnlib.util.EasyDict"] = dict

_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def builders(budget: Budget, more: Builders | None = None) -> Builders:
    """Returns the builders of torch files, extended by `more` for a different kind of file."""
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
    """Replaces `set`, which protocol 2 calls because it has no operation for sets."""
    if type(items) not in (list, tuple):
        raise Malformed("a set is not made of a list")
    return set(map(key_of, items))  # type: ignore[arg-type]


def _no_bytes() -> bytes:
    """Replaces `bytes`, which protocol 2 calls for empty bytes; others are written by `_codecs.encode`."""
    return b""


_PLAIN: dict[str, Callable[..., Any]] = {"set": _set, "bytes": _no_bytes}


def _encode(budget: Budget, text: object, encoding: object) -> bytes:
    """Replaces `_codecs.encode`: Python 3 writes bytes as text in protocol 2."""
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


_SCALARS = (str, int, float, bool, bytes, type(None))


@dataclass(frozen=True)
class PersistentObject:
    """An object of EDM's pickles, such as a network. The source text in the file is not executed.

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

    Shared objects are copied and counted at every use, because a small file with much sharing could be endless.
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
    """Returns the items of a module's table; None marks a parameter that the module lacks."""
    found = {name: item for name, item in items.items() if item is not None}
    if not all(type(name) is str and isinstance(item, kind) for name, item in found.items()):
        raise Malformed("a module's parameters, buffers or submodules are of another kind")
    return found


MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickle of a number with which files of torch before 1.6 begin."""

_MAGIC_NUMBER, _VERSION = 0x1950A86A20F9469CFC6C, 1001


def read_torch_zip(archive: Archive) -> Any:
    """Returns the content of a zip file of data.pkl and data/<key>, as torch writes since 1.6."""
    root, *others = [name.removesuffix("data.pkl") for name in archive.names if name.endswith("/data.pkl")]
    if others:
        raise Malformed("it has more than one data.pkl")
    if archive.is_compressed():
        raise Malformed("its entries are compressed, which torch never does")
    if f"{root}byteorder" in archive.names and bytes(archive.read(f"{root}byteorder")) != b"little":
        raise Malformed("it was written on a machine with another byte order")
    storages: dict[str, Storage] = {}

    def storage(identifier: object) -> Storage:
        key, described = storage_of(identifier, 5)
        found = storages.setdefault(key, described)
        _check_same(found, described)
        if found.data is None:
            found.data = archive.read(f"{root}data/{key}", found.n_bytes)
        return found

    content = bytes(archive.read(f"{root}data.pkl"))
    source, budget = MemoryBytes(content), Budget(len(content))
    found = Unpickler(source, budget, builders(budget), {}, storage).load()
    expect_end(source)
    return plain(found)


def read_torch_legacy(file: BinaryIO, size: int) -> Any:
    """Returns the content of a file of torch before 1.6: five pickles, followed by the storages."""
    source, budget = FileBytes(file, size), Budget(size)
    return plain(_legacy(source, budget))


def read_edm_pickle(file: BinaryIO, size: int) -> Any:
    """Returns the content of EDM's network-snapshot-<kimg>.pkl, or of a different pickle of plain containers."""
    source, budget = FileBytes(file, size), Budget(2 * size)  # protocol 2 encodes bytes before they are read

    def nested(data: object) -> Storage:
        if type(data) is not bytes:
            raise Malformed("a nested torch file is not made of bytes")
        budget.spend_bytes(len(data))
        found = _legacy(MemoryBytes(data), budget)
        if type(found) is not Storage:
            raise Malformed("a nested torch file holds something other than a storage")
        return found

    more: Builders = {
        "torch.storage._load_from_bytes": nested,
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    }
    found = Unpickler(source, budget, builders(budget, more), CLASSES).load()
    expect_end(source)
    return plain(found)


def _persistent(meta: object) -> Instance:
    """Keeps the class name and the state, and ignores the source text of the class."""
    if type(meta) is not dict or type(name := meta.get("class_name")) is not str:
        raise Malformed("a persistent object has no class")
    return Instance(name, meta.get("state"))


def _legacy(source: Bytes, budget: Budget) -> Any:
    magic, version, machine = (Unpickler(source, budget).load() for _ in range(3))
    if not (type(magic) is type(version) is int and (magic, version) == (_MAGIC_NUMBER, _VERSION)):
        raise Malformed("it is not a torch file of version 1001")
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise Malformed("it was written on a machine with another byte order")
    storages: dict[str, Storage] = {}

    def storage(identifier: object) -> Storage:
        key, described = storage_of(identifier, 6)
        if identifier[5] is not None:  # type: ignore[index]
            raise Malformed("it has views of storages, which torch wrote before 0.4")
        found = storages.setdefault(key, described)
        _check_same(found, described)
        return found

    found = Unpickler(source, budget, builders(budget), {}, storage).load()
    _fill(storages, Unpickler(source, budget).load(), source)
    expect_end(source)
    return found


def _fill(storages: dict[str, Storage], keys: Any, source: Bytes) -> None:
    """Reads the numbers of each storage, which follow their count."""
    if type(keys) is not list or not all(type(key) is str and key in storages for key in keys):
        raise Malformed("its list of storages does not fit its tensors")
    for key in keys:
        count = int.from_bytes(source.take(8), "little")
        if count != storages[key].count:
            raise Malformed(f"a storage has {count:,} numbers where {storages[key].count:,} were announced")
        storages[key].data = source.take(storages[key].n_bytes)


def _check_same(found: Storage, described: Storage) -> None:
    if (found.dtype, found.count) != (described.dtype, described.count):
        raise Malformed("it describes one storage in two ways")
