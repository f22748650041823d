# SPDX-License-Identifier: Apache-2.0
"""Files of `torch.save`, read without torch, and EDM's pickles, whose tensors are such files."""

from typing import Any, BinaryIO

from vdmkit.importers.files._builders import CLASSES, builders
from vdmkit.importers.files._bytes import Bytes, FileBytes, MemoryBytes, expect_end
from vdmkit.importers.files._limits import Budget, Malformed
from vdmkit.importers.files._pickle import Builders, Instance, Unpickler
from vdmkit.importers.files._plain import plain
from vdmkit.importers.files._tensor import Storage, storage_of
from vdmkit.importers.files._zip import Archive

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
    """Returns the content of a file of torch before 1.6: five pickles, and then the storages."""
    source, budget = FileBytes(file, size), Budget(size)
    return plain(_legacy(source, budget))


def read_edm_pickle(file: BinaryIO, size: int) -> Any:
    """Returns the content of EDM's network-snapshot-<kimg>.pkl, or of another pickle of plain containers."""
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
    """Keeps the name of the class and the state; the source text of the class stays unread."""
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
