# SPDX-License-Identifier: Apache-2.0
"""Reading a pickle runs nothing that is in it."""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vdmkit.data.cifar10 import array_in, read_pickle
from vdmkit.errors import DataError


class _Touch:
    """Unpickles by running a shell command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def _by_getattr(path: Path) -> bytes:
    return (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'touch " + os.fsencode(path) + b"'\ntR."
    )


# Each touches the file at `path` when plain pickle reads it.
HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "reduce": lambda path: pickle.dumps({b"data": _Touch(path)}, protocol=2),
    "reduce, protocol 5": lambda path: pickle.dumps({b"data": _Touch(path)}, protocol=5),
    "object array": lambda path: pickle.dumps({b"data": np.array([_Touch(path)], object)}, protocol=2),
    "in the labels": lambda path: pickle.dumps({b"data": np.zeros(3, np.uint8), b"labels": [_Touch(path)]}, protocol=2),
    "getattr": _by_getattr,
    "inst": lambda path: b"(S'touch " + os.fsencode(path) + b"'\nios\nsystem\n.",
    "obj": lambda path: b"(cos\nsystem\nS'touch " + os.fsencode(path) + b"'\no.",
}

_ARRAY = b"cnumpy\nndarray\n"
_BYTES = b"c_codecs\nencode\n"
# None of these is in a genuine file; none may be read, or change what later files read as.
ODD = {
    "numpy scalar": pickle.dumps({b"data": np.float64(1)}, protocol=2),
    "array of floats": pickle.dumps({b"data": np.zeros(3)}, protocol=2),
    "array of int8": pickle.dumps({b"data": np.zeros(3, np.int8)}, protocol=2),
    "array of strings": pickle.dumps({b"data": np.array(["a"])}, protocol=2),
    "another codec": pickle.dumps({b"data": np.zeros(3, np.uint8)}, protocol=2).replace(b"latin1", b"base64"),
    "attributes of a class": _ARRAY + b"(dS'array'\nI1\nsb.",
    "attributes of a function": _BYTES + b"(dS'__defaults__'\nI1\nsb.",
    "slots of a function": _BYTES + b"(N(dS'__defaults__'\nI1\nstb.",
    "new": _ARRAY + b")\x81.",
    "dotted name": b"\x80\x04X\x05\x00\x00\x00numpyX\x11\x00\x00\x00ndarray.__class__\x93.",
    "extension": b"\x82\x01.",
    "persistent": b"Pfoo\n.",
    "out of band": pickle.dumps({b"data": np.zeros(3, np.uint8)}, protocol=5),
    "not a dictionary": pickle.dumps([1, 2], protocol=2),
    "nothing": b"",
    "text": b"hello world",
}


def _python2_pickle(data: np.ndarray) -> bytes:
    """What cPickle of Python 2, with numpy of that time, wrote for {"data": data}."""
    shape = b"".join(b"J" + struct.pack("<i", n) for n in data.shape)
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    text = b"T" + struct.pack("<i", data.size) + data.tobytes()
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return b"\x80\x02}U\x04data" + empty + b"(K\x01" + shape + b"\x86" + dtype + b"\x89" + text + b"tbs."


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_execute_nothing(name: str, tmp_path: Path) -> None:
    """Reading a pickle runs no command that it holds."""
    marker = tmp_path / "executed"
    data = HOSTILE[name](marker)
    with pytest.raises(DataError, match="batch: not a pickle of plain arrays"):
        read_pickle(data, "batch")
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "the payload is harmless, so this test shows nothing"


@pytest.mark.parametrize("name", ODD)
def test_odd_pickles_are_refused_and_leave_no_trace(name: str) -> None:
    """A pickle can only build uint8 arrays, lists, strings and numbers."""
    genuine = pickle.dumps({b"data": np.arange(6, dtype=np.uint8)}, protocol=2)
    with pytest.raises(DataError, match="batch: "):
        array_in(read_pickle(ODD[name], "batch"), b"data", "batch")
    np.testing.assert_array_equal(array_in(read_pickle(genuine, "batch"), b"data", "batch"), np.arange(6))


def test_python_2_and_3_pickles_hold_the_same_array() -> None:
    """The authors' files, written by Python 2, are read."""
    data = np.random.default_rng(0).integers(0, 256, (4, 7)).astype(np.uint8)
    for pickled in (
        _python2_pickle(data),
        pickle.dumps({b"data": data}, protocol=2),
        pickle.dumps({b"data": data}, protocol=4),
        pickle.dumps({b"data": np.asfortranarray(data)}, protocol=2),
        pickle.dumps({b"data": data}, protocol=2).replace(b"numpy._core.", b"numpy.core."),
    ):
        np.testing.assert_array_equal(array_in(read_pickle(pickled, "batch"), b"data", "batch"), data)


def test_every_truncation_is_one_clear_error() -> None:
    """A truncated pickle raises DataError at any length."""
    data = _python2_pickle(np.arange(20, dtype=np.uint8))
    for end in range(len(data)):
        with pytest.raises(DataError, match="batch: "):
            read_pickle(data[:end], "batch")
