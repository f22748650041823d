# SPDX-License-Identifier: Apache-2.0
"""Files of torch give what torch reads. The authors' own files are tested in tests/reference/test_files.py."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import CheckpointError
from vdmkit.importers.formats import read_checkpoint
from vdmkit.importers.pickles import PersistentObject

DTYPES = ["float32", "float64", "float16", "bfloat16", "bool", "int64", "int32", "int16", "int8", "uint8"]


def some(dtype: str) -> np.ndarray:
    return np.arange(12).reshape(3, 4).astype(jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_number(tmp_path, ops, dtype):
    """Tensors of every type are read with their type and values."""
    array = some(dtype)
    path = ops.torch_zip(tmp_path / "a.pt", ops.tensor_of("0", array), {"0": array.tobytes()})
    found = read_checkpoint(path)
    assert found.format == "torch"
    assert found.tree.dtype == array.dtype
    np.testing.assert_array_equal(found.tree, array)


def test_views_of_a_shared_storage(tmp_path, ops):
    """Views of a shared storage (transposes, slices, scalars, empty tensors) are read correctly."""
    array = some("float32")
    where = ops.storage("7", "float32", 12)
    views = {
        "whole": ops.tensor(where, (3, 4), (4, 1)),
        "transposed": ops.tensor(where, (4, 3), (1, 4)),
        "slice": ops.tensor(where, (2, 2), (4, 2), 5),
        "scalar": ops.tensor(where, (), (), 11),
        "empty": ops.tensor(where, (0, 4), (4, 1), 12),
    }
    tree = read_checkpoint(ops.torch_zip(tmp_path / "a.pt", ops.dictionary(views), {"7": array.tobytes()})).tree
    expected = {
        "whole": array,
        "transposed": array.T,
        "slice": array[1:, 1::2],
        "scalar": array[2, 3],
        "empty": array[:0],
    }
    assert tree.keys() == expected.keys()
    for name, wanted in expected.items():
        np.testing.assert_array_equal(tree[name], wanted)
    assert np.shares_memory(tree["whole"], tree["slice"])


PLAIN = {
    "ordered": (b"ccollections\nOrderedDict\n)R}(X\x09\0\0\0_metadataccollections\nOrderedDict\n)Rub", {}),
    "list": (b"](K\x01NK\x02e", [1, None, 2]),
    "append": (b"]K\x01a", [1]),
    "tuples": (b"K\x01\x85K\x02\x86\x89\x88\x87", (((1,), 2), False, True)),
    "set": (b"c__builtin__\nset\n](K\x01K\x02e\x85R", {1, 2}),
    "set of protocol 4": (b"\x8f(K\x01K\x02\x90", {1, 2}),
    "numbers": (b"(J\xff\xff\xff\xffM\x01\x02\x8a\x05\0\0\0\0\1G?\xf8\0\0\0\0\0\0t", (-1, 513, 2**32, 1.5)),
    "bytes": (b"c_codecs\nencode\nX\x03\0\0\0a\xc3\xa9X\x06\0\0\0latin1\x86R", b"a\xe9"),
    "text of Python 2": (b"}U\x01aK\x01s", {"a": 1}),
    "memo": (b"K\x05q\x00h\x00\x86", (5, 5)),
    "numpy scalar": (
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f8\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\0tbC\x08\0\0\0\0\0\0\xf8?\x86R",
        1.5,
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_containers_and_numbers(tmp_path, ops, name):
    """Containers and numbers other than tensors are read too."""
    program, expected = PLAIN[name]
    found = read_checkpoint(ops.torch_zip(tmp_path / "a.pt", program, {})).tree
    assert found == expected
    assert type(found) is type(expected) or isinstance(found, np.float64)


def test_parameters_are_tensors(tmp_path, ops):
    """Pickled parameters are read as tensors."""
    array = some("float32")
    program = b"ctorch._utils\n_rebuild_parameter\n(" + ops.tensor_of("0", array) + ops.NO_HOOKS + b"tR"
    found = read_checkpoint(ops.torch_zip(tmp_path / "a.pt", program, {"0": array.tobytes()})).tree
    np.testing.assert_array_equal(found, array)


def test_files_of_torch_before_1_6(tmp_path, ops):
    """Files written by torch before 1.6 are read."""
    arrays = {"a": some("float32"), "b": some("int64")}
    program = ops.dictionary({name: ops.tensor_of(name, array, b"N") for name, array in arrays.items()})
    path = tmp_path / "a.pt"
    path.write_bytes(ops.torch_legacy(program, dict(reversed(arrays.items()))))
    found = read_checkpoint(path)
    assert found.format == "torch before 1.6"
    assert found.tree.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.tree[name], array)


def module(ops, name: str, **state: bytes) -> bytes:
    """The operations that push one of EDM's persistent objects."""
    meta = {"class_name": ops.text(name), "module_src": ops.text("raise SystemExit"), "state": ops.dictionary(state)}
    return b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + ops.dictionary(meta) + b"\x85R"


def test_modules_of_edm(tmp_path, ops):
    """EDM's pickled modules give their tensors and constructor arguments, and their source is not executed."""
    array = some("float32")
    storage = ops.nested(ops.torch_legacy(ops.storage("1", "float32", 12, b"N"), {"1": array}))
    weight = ops.tensor(storage, (3, 4), (4, 1))
    inner = module(
        ops,
        "Linear",
        _parameters=ops.dictionary({"weight": weight, "bias": b"N"}),
        _buffers=ops.dictionary({"freqs": weight}),
        _modules=b"}",
    )
    container = b"ctorch.nn.modules.container\nModuleDict\n)\x81" + ops.dictionary(
        {"_modules": ops.dictionary({"8x8": inner})}
    )
    outer = module(
        ops,
        "Net",
        _modules=ops.dictionary({"enc": container + b"b"}),
        _init_args=ops.integers((4,)),
        _init_kwargs=ops.dictionary({"width": ops.integer(8)}),
        sigma_data=b"G?\xe0\0\0\0\0\0\0",
    )
    path = tmp_path / "network-snapshot-000001.pkl"
    path.write_bytes(ops.edm_pickle(ops.dictionary({"ema": outer})))
    found = read_checkpoint(path).tree["ema"]
    assert isinstance(found, PersistentObject)
    assert (found.class_name, found.arguments, found.keywords) == ("Net", (4,), {"width": 8})
    assert found.attributes == {"sigma_data": 0.5}
    tensors = found.state_dict()
    assert tensors.keys() == {"enc.8x8.weight", "enc.8x8.freqs"}
    np.testing.assert_array_equal(tensors["enc.8x8.weight"], array)


def test_memory_is_that_of_the_file(tmp_path, ops):
    """Reading a checkpoint takes little more memory than its file, because nothing is copied."""
    array = np.zeros(2_000_000, np.float32)
    zipped = ops.torch_zip(tmp_path / "a.pt", ops.tensor_of("0", array), {"0": array.tobytes()})
    old = tmp_path / "b.pt"
    old.write_bytes(ops.torch_legacy(ops.tensor_of("0", array, b"N"), {"0": array}))
    for path in (zipped, old):
        tracemalloc.start()
        tree = read_checkpoint(path).tree
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert tree.nbytes == array.nbytes
        assert peak < 1.1 * path.stat().st_size


def test_a_whole_model_says_which_class_it_needs(tmp_path, ops):
    """A pickled model is refused with the name of its class."""
    program = ops.dictionary({"model": b"cmodels.unet\nUNetModel\n)\x81}b"})
    with pytest.raises(CheckpointError, match=r"refers to models\.unet\.UNetModel.*Nothing in it was executed"):
        read_checkpoint(ops.torch_zip(tmp_path / "a.pt", program, {}))
