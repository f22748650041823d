# SPDX-License-Identifier: Apache-2.0
"""Malicious or malformed checkpoints are read or refused; nothing in them is executed."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vdmkit.errors import CheckpointError
from vdmkit.importers import pickles
from vdmkit.importers.formats import read_checkpoint


class _Touch:
    """Unpickles by running a shell command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def _command(path: Path) -> bytes:
    return b"(S'touch " + os.fsencode(path) + b"'\n"


def _evaluated(path: Path) -> bytes:
    code = f"open({str(path)!r}, 'w').close()".encode()
    return b"\x80\x02cbuiltins\neval\nX" + struct.pack("<I", len(code)) + code + b"\x85R."


def _by_getattr(path: Path) -> bytes:
    return (
        b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'touch "
        + os.fsencode(path)
        + b"'\ntR."
    )


# Each touches the file at `path` when plain pickle reads it.
EXECUTED: dict[str, Callable[[Path], bytes]] = {
    "reduce": lambda path: pickle.dumps({"a": _Touch(path)}, protocol=2),
    "reduce of protocol 5": lambda path: pickle.dumps({"a": _Touch(path)}, protocol=5),
    "object array": lambda path: pickle.dumps(np.array([_Touch(path)], object), protocol=2),
    "eval": _evaluated,
    "getattr": _by_getattr,
    "inst": lambda path: b"\x80\x02" + _command(path) + b"ios\nsystem\n.",
    "obj": lambda path: b"\x80\x02(cos\nsystem\n" + _command(path)[1:] + b"o.",
    "dotted name": lambda path: b"\x80\x04X\2\0\0\0osX\6\0\0\0system\x93" + _command(path) + b"tR.",
}


def _wrapped(ops, form: str, program: bytes, path: Path) -> Path:
    """Writes a file with this pickle: a zip, a file of EDM, or one nested in it."""
    if form == "zip":
        return ops.torch_zip(path, program[2:-1], {})
    if form == "pickle":
        path.write_bytes(program)
    else:
        inner = ops.torch_legacy(b"N", {}).replace(b"\x80\x02N.", program)
        path.write_bytes(inner if form == "old" else ops.edm_pickle(ops.nested(inner)))
    return path


@pytest.mark.parametrize("form", ["zip", "pickle", "old", "nested"])
@pytest.mark.parametrize("name", EXECUTED)
def test_nothing_is_executed(tmp_path, ops, name, form):
    """A malicious pickle is refused and nothing in it is executed, in every container format."""
    marker = tmp_path / "executed"
    program = EXECUTED[name](marker)
    with pytest.raises(CheckpointError, match=r"file: cannot be read as a checkpoint: .*Nothing in it was executed"):
        read_checkpoint(_wrapped(ops, form, program, tmp_path / "file"))
    assert not marker.exists()
    pickle.loads(program)
    assert marker.exists(), "the payload is harmless, so this test shows nothing"


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.load", "torch.nn.Linear", "argparse.Namespace"])
def test_the_global_is_named(tmp_path, ops, name):
    """The error names the global that the file refers to."""
    module, _, last = name.rpartition(".")
    program = f"c{module}\n{last}\n".encode()
    with pytest.raises(CheckpointError, match=f"refers to {name}, and"):
        read_checkpoint(ops.torch_zip(tmp_path / "a.pt", program, {}))


def _pid(ops, *parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"tQ"


def _float(ops) -> bytes:
    return b"ctorch\nFloatStorage\n"


_OF_4 = {"0": bytes(16)}
_DICT = b"ccollections\nOrderedDict\n"

# Pickles for a zip with a storage "0" of four float32.
ODD: dict[str, Callable[..., bytes]] = {
    "id is text": lambda ops: ops.text("storage") + b"Q",
    "id is empty": lambda ops: b")Q",
    "id of another kind": lambda ops: _pid(
        ops, ops.text("module"), _float(ops), ops.text("0"), ops.text("cpu"), b"K\4"
    ),
    "key is a number": lambda ops: _pid(ops, ops.text("storage"), _float(ops), b"K\0", ops.text("cpu"), b"K\4"),
    "key is a path": lambda ops: ops.tensor(ops.storage("../../../etc/passwd", "float32", 4), (4,), (1,)),
    "type is text": lambda ops: _pid(ops, ops.text("storage"), ops.text("f4"), ops.text("0"), ops.text("cpu"), b"K\4"),
    "type is a builder": lambda ops: _pid(ops, ops.text("storage"), _DICT, ops.text("0"), ops.text("cpu"), b"K\4"),
    "count is negative": lambda ops: ops.storage("0", "float32", -4),
    "count is text": lambda ops: _pid(
        ops, ops.text("storage"), _float(ops), ops.text("0"), ops.text("cpu"), ops.text("4")
    ),
    "count is true": lambda ops: _pid(ops, ops.text("storage"), _float(ops), ops.text("0"), ops.text("cpu"), b"\x88"),
    "count is huge": lambda ops: ops.tensor(ops.storage("0", "float32", 2**60), (4,), (1,)),
    "count is too large": lambda ops: ops.tensor(ops.storage("0", "float32", 5), (4,), (1,)),
    "count is too small": lambda ops: ops.tensor(ops.storage("0", "float32", 3), (3,), (1,)),
    "two types": lambda ops: b"(" + ops.storage("0", "float32", 4) + ops.storage("0", "int32", 4) + b"t",
    "missing storage": lambda ops: ops.tensor(ops.storage("1", "float32", 4), (4,), (1,)),
    "storage alone": lambda ops: ops.storage("0", "float32", 4),
    "beyond the end": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (4,), (1,), 1),
    "before the start": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (4,), (1,), -1),
    "huge offset": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (1,), (1,), 2**62),
    "huge stride": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (2,), (2**61,)),
    "negative stride": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (4,), (-1,), 3),
    "stride 0 repeats": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (2**40,), (0,)),
    "negative size": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (-4,), (1,)),
    "too few strides": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (2, 2), (1,)),
    "hundred dimensions": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (1,) * 100, (1,) * 100),
    "size is not whole": lambda ops: (
        ops.TENSOR + b"(" + ops.storage("0", "float32", 4) + b"K\0(G?\xf0\0\0\0\0\0\0t(K\1t" + ops.NO_HOOKS + b"tR"
    ),
    "tensor of a list": lambda ops: ops.tensor(b"]", (0,), (1,)),
    "tensor of nothing": lambda ops: ops.TENSOR + b")R",
    "parameter of a list": lambda ops: b"ctorch._utils\n_rebuild_parameter\n]\x89N\x87R",
    "nested file": lambda ops: ops.nested(ops.torch_legacy(b"N", {})),
    "builder as a value": lambda ops: _DICT,
    "builder of arguments": lambda ops: _DICT + b"K\1\x85R",
    "call of a list": lambda ops: b"])R",
    "call with a list": lambda ops: _DICT + b"]R",
    "state of a builder": lambda ops: _DICT + b"}b",
    "state of a list": lambda ops: b"]}b",
    "state of a tensor": lambda ops: ops.tensor(ops.storage("0", "float32", 4), (4,), (1,)) + b"}b",
    "new object": lambda ops: _DICT + b")\x81",
    "append to a tuple": lambda ops: b")K\1a",
    "items of a list": lambda ops: b"]K\1K\2s",
    "odd number of items": lambda ops: b"}(K\1u",
    "add to a list": lambda ops: b"](K\1\x90",
    "key is a list": lambda ops: b"}]K\1s",
    "keys that share a hash": lambda ops: b"}" + ops.integer(2**61 - 1) + b"Ns",
    "key is a deep tuple": lambda ops: b"})" + b"\x85" * 2_000 + b"K\1s",
    "set of deep tuples": lambda ops: b"\x8f()" + b"\x85" * 2_000 + b"\x90",
    "deep lists": lambda ops: b"]" * 1_000 + b"a" * 999,
    "list in itself": lambda ops: b"]q\0h\0a",
    "dictionary in itself": lambda ops: b"}q\0K\1h\0s",
    "doubling lists": lambda ops: b"]q\0" + b"0](h\0h\0eq\0" * 60,
    "doubling tuples": lambda ops: b")q\0" + b"h\0h\0\x86q\0" * 60,
    "memo that was never filled": lambda ops: b"h\x05",
    "empty stack": lambda ops: b"",
    "two objects": lambda ops: b"NN",
    "no mark": lambda ops: b"t",
    "mark as a value": lambda ops: b"(",
    "pop of a mark": lambda ops: b"(K\1\x85R",
    "huge text": lambda ops: b"\x8d" + struct.pack("<Q", 2**62),
    "huge bytes": lambda ops: b"B\xff\xff\xff\xff",
    "huge frame": lambda ops: b"\x95" + struct.pack("<Q", 2**62) + b"]" * 9,
    "huge number": lambda ops: b"\x8b\xff\xff\xff\x7f",
    "long name": lambda ops: b"c" + b"a" * 5000 + b"\nb\n",
    "name that controls the terminal": lambda ops: ops.text("\x1b[2Jos") + ops.text("system") + b"\x93",
    "name is a number": lambda ops: b"K\1K\2\x93",
    "extension": lambda ops: b"\x82\x01",
    "out of band": lambda ops: b"\x97",
    "byte array": lambda ops: b"\x96\1\0\0\0\0\0\0\0a",
    "new object with keywords": lambda ops: _DICT + b")}\x92",
    "another codec": lambda ops: b"c_codecs\nencode\n" + ops.text("a") + ops.text("rot13") + b"\x86R",
    "encoding without end": lambda ops: (
        b"(c_codecs\nencode\nq\0" + ops.text("a" * 9000) + ops.text("latin1") + b"\x86q\x01R" + b"h\0h\x01R" * 99 + b"t"
    ),
    "numpy object": lambda ops: b"cnumpy\ndtype\n" + ops.text("O8") + b"\x89\x88\x87R",
    "numpy records": lambda ops: b"cnumpy\ndtype\n" + ops.text("f8,f8") + b"\x89\x88\x87R",
    "numpy array": lambda ops: b"cnumpy.core.multiarray\n_reconstruct\n",
    "bytes of another length": lambda ops: (
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n" + ops.text("f8") + b"\x89\x88\x87RC\x01a\x86R"
    ),
    "big-endian number": lambda ops: (
        b"cnumpy\ndtype\n" + ops.text("f8") + b"\x89\x88\x87R(K\x03" + ops.text(">") + b"NNNK\0K\0K\0tb"
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_pickles_are_refused(tmp_path, ops, name, monkeypatch):
    """Malformed or excessive pickles are refused with a short, printable message."""
    monkeypatch.setattr(pickles, "MAX_VALUES", 5_000)
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(ops.torch_zip(tmp_path / "a.pt", ODD[name](ops), _OF_4))
    assert str(refused.value).startswith(f"{tmp_path / 'a.pt'}: cannot be read as a checkpoint: ")
    assert len(str(refused.value)) < 700
    assert str(refused.value).isprintable()


def test_the_memo_takes_no_more_than_it_holds(tmp_path, ops):
    """A large memo index takes no memory (16 GB for six bytes in Python's unpickler)."""
    path = ops.torch_zip(tmp_path / "a.pt", b"K\1r\xff\xff\xff\x7fj\xff\xff\xff\x7f\x86", {})
    assert read_checkpoint(path).tree == (1, 1)


def test_a_pickle_has_an_end(tmp_path, ops, monkeypatch):
    """The number of pickle operations is limited, including those of nested pickles."""
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 1000)
    inner = ops.nested(ops.torch_legacy(ops.storage("0", "float32", 1, b"N"), {"0": np.zeros(1, np.float32)}))
    for name, program in {"long": b"]0" * 600 + b"N", "nested": (inner + b"0") * 30 + b"N"}.items():
        (tmp_path / name).write_bytes(ops.edm_pickle(program))
        with pytest.raises(CheckpointError, match=r"pickles have more than [\d,]+ operations"):
            read_checkpoint(tmp_path / name)


def test_nested_files_are_read_once(tmp_path, ops):
    """A pickle that reads the same nested file many times is refused."""
    inner = ops.torch_legacy(ops.storage("0", "float32", 9000, b"N"), {"0": np.zeros(9000, np.float32)})
    call = b"ctorch.storage\n_load_from_bytes\nq\0B" + struct.pack("<I", len(inner)) + inner + b"\x85q\1R"
    (tmp_path / "a.pkl").write_bytes(ops.edm_pickle(call + b"0h\0h\1R" * 9))
    with pytest.raises(CheckpointError, match="copy more bytes than it has"):
        read_checkpoint(tmp_path / "a.pkl")


def test_a_nested_file_nests_none(tmp_path, ops):
    """A file nested in a nested file is refused."""
    inner = ops.torch_legacy(ops.nested(ops.torch_legacy(b"N", {})), {})
    (tmp_path / "a.pkl").write_bytes(ops.edm_pickle(ops.nested(inner)))
    with pytest.raises(CheckpointError, match=r"refers to torch\.storage\._load_from_bytes"):
        read_checkpoint(tmp_path / "a.pkl")


OLD: dict[str, Callable[..., bytes]] = {
    "no list": lambda ops: ops.torch_legacy(ops.tensor_of("0", np.zeros(4, np.float32), b"N"), {}),
    "unknown storage": lambda ops: ops.torch_legacy(b"N", {"0": np.zeros(4, np.float32)}),
    "another count": lambda ops: ops.torch_legacy(
        ops.tensor_of("0", np.zeros(4, np.float32), b"N"), {"0": np.zeros(5, np.float32)}
    ),
    "huge count": lambda ops: ops.torch_legacy(
        ops.tensor(ops.storage("0", "float32", 2**61, b"N"), (4,), (1,)), {"0": np.zeros(4, np.float32)}
    ),
    "view": lambda ops: ops.torch_legacy(ops.storage("0", "float32", 4, b")"), {}),
    "big-endian": lambda ops: ops.torch_legacy(b"N", {}).replace(b"\x88u", b"\x89u"),
    "more follows": lambda ops: ops.torch_legacy(b"N", {}) + b"more",
}


@pytest.mark.parametrize("name", OLD)
def test_odd_files_of_old_torch_are_refused(tmp_path, ops, name):
    """A legacy file whose storages do not fit its tensors is refused."""
    (tmp_path / "a.pt").write_bytes(OLD[name](ops))
    with pytest.raises(CheckpointError, match=r"a\.pt: cannot be read as a checkpoint: "):
        read_checkpoint(tmp_path / "a.pt")


def _rewritten(path: Path, change: Callable[[zipfile.ZipFile], None]) -> None:
    with zipfile.ZipFile(path, "a") as file:
        change(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("archive/data/0", "two entries"),
        ("../outside", "leads out of the file"),
        ("/etc/passwd", "leads out of the file"),
        ("archive/data/..", "leads out of the file"),
        ("other/data.pkl", "more than one data.pkl"),
    ],
)
def test_odd_entries_of_a_zip_are_refused(tmp_path, ops, entry, words):
    """Duplicate entries of a zip, and names outside the archive, are refused."""
    path = ops.torch_zip(tmp_path / "a.pt", ops.tensor_of("0", np.zeros(4, np.float32)), _OF_4)
    _rewritten(path, lambda file: file.writestr(entry, bytes(16)))
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)


def test_compressed_entries_are_refused(tmp_path, ops):
    """Compressed entries are refused in torch files, which torch never compresses."""
    array = np.zeros(100_000, np.float32)
    program, storages = ops.tensor_of("0", array), {"0": array.tobytes()}
    path = ops.torch_zip(tmp_path / "a.pt", program, storages, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="are compressed"):
        read_checkpoint(path)


def test_a_bomb_of_npz_is_refused(tmp_path, ops):
    """An npz file that expands far beyond its size is refused."""
    path = ops.npz(tmp_path / "a.npz", {"a": np.zeros(1_000_000, np.float32)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"claim 4,000,128 bytes, and it has \d"):
        read_checkpoint(path)


def _patched(data: bytes, mark: bytes, at: int, value: bytes, first: bool = True) -> bytes:
    """Returns the bytes with `value` written `at` bytes after the first or last mark."""
    start = (data.find(mark) if first else data.rfind(mark)) + at
    return data[:start] + value + data[start + len(value) :]


# Changes to one entry of the central directory, and to its end record.
CLAIMS: dict[str, Callable[[bytes], bytes]] = {
    "compressed less than declared": lambda data: _patched(data, b"PK\1\2", 24, struct.pack("<I", 100)),
    "stored sizes differ": lambda data: _patched(data, b"PK\1\2", 20, struct.pack("<I", 5)),
    "size of four gigabytes": lambda data: _patched(data, b"PK\1\2", 20, b"\xfe\xff\xff\xff\xfe\xff\xff\xff"),
    "wide size without one": lambda data: _patched(data, b"PK\1\2", 20, b"\xff" * 8),
    "elsewhere": lambda data: _patched(data, b"PK\1\2", 42, struct.pack("<I", 3)),
    "beyond the end": lambda data: _patched(data, b"PK\1\2", 42, struct.pack("<I", 2**31)),
    "encrypted": lambda data: _patched(data, b"PK\1\2", 8, b"\1"),
    "another method": lambda data: _patched(data, b"PK\1\2", 10, b"\x0c"),
    "another checksum": lambda data: _patched(data, b"PK\1\2", 16, b"\0\0\0\0"),
    "long name": lambda data: _patched(data, b"PK\1\2", 28, b"\xff\xff"),
    "huge directory": lambda data: _patched(data, b"PK\5\6", 12, struct.pack("<I", 2**31), first=False),
    "directory elsewhere": lambda data: _patched(data, b"PK\5\6", 16, struct.pack("<I", 7), first=False),
    "more follows": lambda data: data + b"more",
}


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_claims_of_a_zip_are_checked(tmp_path, ops, name, compression):
    """A zip whose directory contradicts its entries is refused."""
    if name == "stored sizes differ" and compression == zipfile.ZIP_DEFLATED:
        return  # this one is truncated
    array = np.random.default_rng(0).normal(size=1000)
    path = ops.npz(tmp_path / "a.npz", {"a": array}, compression)
    path.write_bytes(CLAIMS[name](path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"a\.npz: cannot be read as a checkpoint: "):
        read_checkpoint(path)


def test_entries_that_overlap_are_refused(tmp_path, ops):
    """A zip with overlapping entries is refused."""
    array = np.random.default_rng(0).normal(size=1000)
    path = ops.npz(tmp_path / "a.npz", {"a": array, "b": array[:10]})
    data = path.read_bytes()
    size = struct.pack("<I", len(data) - 30)
    path.write_bytes(_patched(data, b"PK\1\2", 20, size + size, first=False))
    with pytest.raises(CheckpointError, match="its entries claim"):
        read_checkpoint(path)
