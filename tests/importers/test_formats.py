# SPDX-License-Identifier: Apache-2.0
"""Safetensors, npz, Flax and diffusers folders, and truncated or damaged files of every format."""

import contextlib
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from vdmkit.errors import CheckpointError
from vdmkit.importers import read_weights
from vdmkit.importers.formats import flat_arrays, read_checkpoint

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.normal(size=(3, 3, 2, 4)).astype(np.float32),
    "conv.bias": RNG.normal(size=4),
    "step": np.asarray(7, np.int64),
    "mask": np.asarray([True, False, True]),
    "none": np.zeros((0, 3), np.float16),
}
HALF = {"half": np.asarray(RNG.normal(size=5), jnp.dtype("bfloat16"))}
SAFE = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "bool": "BOOL"}


def safetensors(arrays: dict[str, np.ndarray], **changes: Any) -> bytes:
    """Returns the bytes of a safetensors file. `changes` replaces entries of its header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in arrays.items():
        header[name] = {"dtype": SAFE[array.dtype.name], "shape": array.shape, "data_offsets": (at, at + array.nbytes)}
        at += array.nbytes
    text = json.dumps(header | changes).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values())


def flax(tree: Any) -> bytes:
    def encode(array: np.ndarray) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    return msgpack.packb(tree, default=encode)


def written(format: str, arrays: dict[str, np.ndarray], path: Path, ops) -> Path:
    """Writes these arrays to a file of the given format."""
    if format == "torch":
        items = {name: ops.tensor_of(name, array) for name, array in arrays.items()}
        return ops.torch_zip(path, ops.dictionary(items), {name: array.tobytes() for name, array in arrays.items()})
    if format == "torch before 1.6":
        items = {name: ops.tensor_of(name, array, b"N") for name, array in arrays.items()}
        path.write_bytes(ops.torch_legacy(ops.dictionary(items), arrays))
    elif format == "pickle":
        items = {name: ops.nested_tensor(array) for name, array in arrays.items()}
        path.write_bytes(ops.edm_pickle(ops.dictionary(items)))
    elif format in ("npz", "compressed npz"):
        return ops.npz(path, arrays, zipfile.ZIP_STORED if format == "npz" else zipfile.ZIP_DEFLATED)
    else:
        path.write_bytes(safetensors(arrays) if format == "safetensors" else flax(arrays))
    return path


FORMATS = ["torch", "torch before 1.6", "pickle", "safetensors", "npz", "compressed npz", "flax"]
CHECKED = {"torch", "npz", "compressed npz"}  # zip files have checksums


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_arrays(tmp_path, ops, format):
    """Every format gives the same arrays, and is detected without its suffix."""
    arrays = ARRAYS if "npz" in format else ARRAYS | HALF
    found = read_checkpoint(written(format, arrays, tmp_path / "file", ops))
    assert found.format == format.removeprefix("compressed ")
    assert found.tree.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.tree[name], array)
        assert found.tree[name].dtype == array.dtype


def test_numpy_arrays_of_another_order(tmp_path, ops):
    """Fortran-ordered and big-endian arrays are read correctly, in native byte order."""
    arrays = {"fortran": np.asfortranarray(RNG.normal(size=(2, 3))), "big": np.arange(3, dtype=">f4")}
    found = read_checkpoint(ops.npz(tmp_path / "a.npz", arrays)).tree
    assert all(array.dtype.isnative for array in found.values())
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("format", ["safetensors", "npz", "compressed npz", "flax"])
def test_memory_is_that_of_the_file(tmp_path, ops, format):
    """Reading a checkpoint takes little more memory than its file."""
    array = RNG.normal(size=500_000)
    path = written(format, {"a": array}, tmp_path / "file", ops)
    tracemalloc.start()
    read_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pieces = 3_000_000 if format == "compressed npz" else 0  # of a mebibyte: one to read, one that it becomes
    assert peak < 1.2 * path.stat().st_size + pieces


@pytest.mark.parametrize("format", ["torch", "torch before 1.6", "safetensors", "npz", "flax"])
def test_an_array_is_released_by_itself(tmp_path, ops, format):
    """Each array can be released separately, so that an import does not need twice the memory."""
    path = written(format, {"a": RNG.normal(size=500_000), "b": RNG.normal(size=2)}, tmp_path / "file", ops)
    tracemalloc.start()
    tree = read_checkpoint(path).tree
    del tree["a"]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 0.1 * path.stat().st_size


def read_or_refused(path: Path) -> Any:
    """Returns the arrays of a file, or None if it is refused with a CheckpointError."""
    with contextlib.suppress(CheckpointError):
        return flat_arrays(read_checkpoint(path).tree)
    return None


@pytest.mark.parametrize("format", FORMATS)
def test_every_truncation_is_refused(tmp_path, ops, format):
    """A truncated file is refused, wherever it ends."""
    data = written(format, ARRAYS, tmp_path / "whole", ops).read_bytes()
    for end in sorted({*range(0, len(data), 37), *range(40), len(data) - 1}):
        (tmp_path / "file").write_bytes(data[:end])
        assert read_or_refused(tmp_path / "file") is None, end


@pytest.mark.parametrize("format", FORMATS)
def test_every_flipped_bit_is_found_or_harmless(tmp_path, ops, format):
    """A flipped bit gives an error or, in formats with checksums, the same numbers."""
    data = bytearray(written(format, ARRAYS, tmp_path / "whole", ops).read_bytes())
    for bit in np.random.default_rng(1).integers(0, 8 * len(data), 43):
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "file").write_bytes(data)
        found = read_or_refused(tmp_path / "file")
        data[bit // 8] ^= 1 << bit % 8
        if found is not None and format in CHECKED:
            assert all(np.array_equal(array, ARRAYS[name]) for name, array in found.items()), bit


def _entry(shape: Any, offsets: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


FOUR = {"a": np.zeros(4, np.float32)}
HEADERS: dict[str, bytes] = {
    "header beyond the end": struct.pack("<Q", 2**39) + b"{}",
    "header of a gigabyte": struct.pack("<Q", 10**9) + b"{}",
    "not JSON": struct.pack("<Q", 2) + b"{]",
    "deep JSON": struct.pack("<Q", 50_005) + b'{"a":' + b"[" * 50_000,
    "two names": struct.pack("<Q", 13) + b'{"a":1,"a":2}',
    "no entry": safetensors(FOUR, a=1),
    "no offsets": safetensors(FOUR, a={"dtype": "F32", "shape": [4]}),
    "offsets overlap": safetensors(FOUR, b=_entry([4], [0, 16])),
    "a gap": safetensors(FOUR, a=_entry([3], [4, 16])),
    "too short": safetensors(FOUR, a=_entry([3], [0, 12])),
    "too long": safetensors(FOUR, a=_entry([5], [0, 20])),
    "huge": safetensors(FOUR, a=_entry([2**40, 2**40], [0, 2**82])),
    "negative": safetensors(FOUR, a=_entry([-4], [0, -16])),
    "another shape": safetensors(FOUR, a=_entry([5], [0, 16])),
    "fractions": safetensors(FOUR, a=_entry([4.0], [0, 16])),
    "unknown type": safetensors(FOUR, a=_entry([4], [0, 16], "F8_E4M3")),
    "list as type": safetensors(FOUR, a=_entry([4], [0, 16]) | {"dtype": ["F32"]}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_safetensors_are_checked(tmp_path, name):
    """Invalid safetensors headers, such as wrong sizes or overlapping tensors, are refused."""
    (tmp_path / "file").write_bytes(HEADERS[name])
    with pytest.raises(CheckpointError, match="file: cannot be read as a checkpoint: "):
        read_checkpoint(tmp_path / "file")


class _Object:
    pass


@pytest.mark.parametrize(
    "array", [np.array([_Object], object), np.array(["a"]), np.zeros(2, "f4,f4"), np.zeros(2, "c8")]
)
def test_npz_holds_numbers_only(tmp_path, ops, array):
    """Arrays of objects, which are pickles, are refused."""
    with pytest.raises(CheckpointError, match="not numbers"):
        read_checkpoint(ops.npz(tmp_path / "a.npz", {"a": array}))


def _array(shape: Any, dtype: Any, data: Any, code: int = 1) -> bytes:
    return msgpack.packb({"a": msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))})


PACKED: dict[str, bytes] = {
    "list of four billion": b"\x81\xa1a\xdd\xff\xff\xff\xff\xc0",
    "map of four billion": b"\xdf\xff\xff\xff\xff\xa1a\xc0",
    "bytes of four gigabytes": b"\x81\xa1a\xc6\xff\xff\xff\xff\0",
    "deep lists": b"\x81\xa1a" + b"\x91" * 5000 + b"\xc0",
    "two names": b"\x82\xa1a\xc0\xa1a\xc0",
    "number as name": b"\x81\x01\xc0",
    "unused code": b"\x81\xa1a\xc1",
    "not UTF-8": b"\x81\xa1\xff\xc0",
    "more follows": b"\x81\xa1a\xc0\xc0",
    "unknown extension": _array([1], "float32", bytes(4), 9),
    "objects": _array([1], "object", bytes(8)),
    "another shape": _array([3], "float32", bytes(8)),
    "shape by deduction": _array([-1], "float32", bytes(8)),
    "half a number": _array([1], "float32", bytes(5)),
    "text as numbers": _array([1], "float32", "abcd"),
    "array in an array": _array([1], "float32", msgpack.ExtType(1, b"")),
    "no array": msgpack.packb({"a": msgpack.ExtType(1, b"")}),
    "chunks of nothing": msgpack.packb({"a": {"__msgpack_chunked_array__": True, "shape": {}, "chunks": 7}}),
}


@pytest.mark.parametrize("name", PACKED)
def test_claims_of_flax_are_checked(tmp_path, name):
    """Flax files with wrong sizes or excessive nesting are refused."""
    (tmp_path / "file").write_bytes(PACKED[name])
    with pytest.raises(CheckpointError, match="file: cannot be read as a checkpoint: "):
        read_checkpoint(tmp_path / "file")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x80", b"\x93NUMPY", b"PK", bytes(600), b"\x89HDF\r\n\x1a\n" + bytes(99)]
)
def test_other_files_are_refused_with_what_is_read(tmp_path, data):
    """A file of an unsupported format is refused with the list of supported ones."""
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"file: (of no format that is read \(torch|cannot be read as a checkpoint)"
    ):
        read_checkpoint(tmp_path / "file")


NAMES = ("conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight", "mid.attentions.0.query.weight")
DDPM = {name: RNG.normal(size=(2, 2)).astype(np.float32) for name in NAMES}
CONFIG = {"_class_name": "UNet2DModel", "in_channels": 3}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def folder(path: Path, files: dict[str, Any]) -> Path:
    """Writes a folder with these files, given as bytes or as objects that become JSON."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


PARTS = [dict(list(DDPM.items())[:2]), dict(list(DDPM.items())[2:])]
INDEX = {"weight_map": {name: f"part-{i}.safetensors" for i, part in enumerate(PARTS) for name in part}}
SHARDS = {f"part-{i}.safetensors": safetensors(part) for i, part in enumerate(PARTS)}
FOLDERS: dict[str, dict[str, Any]] = {
    "network": {"config.json": CONFIG, WEIGHTS: safetensors(DDPM)},
    "old pipeline": {
        "config.json": CONFIG,
        WEIGHTS: safetensors(DDPM),
        "model_index.json": {"unet": 1},
        "scheduler_config.json": {"beta_start": 1},
    },
    "pipeline": {
        "model_index.json": {"unet": 1},
        "unet/config.json": CONFIG,
        f"unet/{WEIGHTS}": safetensors(DDPM),
        "scheduler/scheduler_config.json": {"beta_start": 1},
    },
    "parts": {"config.json": CONFIG, f"{WEIGHTS}.index.json": INDEX} | SHARDS,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_diffusers(tmp_path, name):
    """Pipelines, single networks, old pipelines and sharded networks of diffusers are read."""
    found = read_weights(folder(tmp_path / "model", FOLDERS[name]))
    assert found.family == "diffusers"
    assert found.ema.keys() == {*NAMES[:3], "mid.attentions.0.to_q.weight"}
    np.testing.assert_array_equal(found.ema["mid.attentions.0.to_q.weight"], DDPM[NAMES[3]])
    assert found.config["unet"] == CONFIG
    assert (found.config.get("scheduler") == {"beta_start": 1}) == ("pipeline" in name)


def test_the_weights_of_old_folders_are_torch_files(tmp_path, ops):
    """Diffusers folders that predate safetensors are read."""
    made = folder(tmp_path / "model", {"config.json": CONFIG})
    written("torch", DDPM, made / "diffusion_pytorch_model.bin", ops)
    assert read_weights(made).ema.keys() == read_weights(folder(tmp_path / "new", FOLDERS["network"])).ema.keys()


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({}, "a folder, where a file is expected, or a folder of diffusers"),
    "no weights": ({"config.json": CONFIG}, "holds no diffusion_pytorch_model"),
    "no network": ({"model_index.json": {}, WEIGHTS: b""}, r"config\.json: no such file"),
    "list as configuration": ({"config.json": [], WEIGHTS: safetensors(DDPM)}, "cannot be read as a JSON object"),
    "torn configuration": ({"config.json": b'{"a', WEIGHTS: safetensors(DDPM)}, "cannot be read as a JSON object"),
    "no map": ({"config.json": CONFIG, f"{WEIGHTS}.index.json": {}}, "does not name files of this folder"),
    "elsewhere": (
        {"config.json": CONFIG, f"{WEIGHTS}.index.json": {"weight_map": {"a": "../x.safetensors"}}},
        "does not name files of this folder",
    ),
    "part missing": ({"config.json": CONFIG, f"{WEIGHTS}.index.json": INDEX}, r"part-0\.safetensors: no such file"),
    "part twice": (
        {"config.json": CONFIG, f"{WEIGHTS}.index.json": INDEX, **dict.fromkeys(SHARDS, safetensors(DDPM))},
        "not a part of a network's weights",
    ),
    "torn weights": ({"config.json": CONFIG, WEIGHTS: safetensors(DDPM)[:-9]}, f"{WEIGHTS}: cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused(tmp_path, name):
    """An incomplete folder, or one that refers to files outside itself, is refused."""
    files, words = BROKEN[name]
    (tmp_path / "model").mkdir()
    with pytest.raises(CheckpointError, match=words):
        read_weights(folder(tmp_path / "model", files))
