# SPDX-License-Identifier: Apache-2.0
"""Every kind of file that vdmkit reads, with bytes changed, cut, repeated and inserted: a message, or what is there.

`uv run pytest -m slow tests/faults/test_fuzz.py` takes 10,000 files of each kind, and VDMKIT_FAULTS_COUNT any number.
"""

import importlib.util
import io
import json
import pickle
import sys
import tarfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import msgpack
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from vdmkit.checkpoint._checksums import what_is_damaged
from vdmkit.data import list_images
from vdmkit.data._cifar10 import Cifar10
from vdmkit.data._image_file import read_image
from vdmkit.data._npz import Npz
from vdmkit.data._pickle import array_in, read_pickle
from vdmkit.data._sidecar import read_sidecar
from vdmkit.errors import VdmkitError
from vdmkit.importers import read_checkpoint
from vdmkit.recipe import load_recipe
from vdmkit.report import read_metrics
from vdmkit.run import RunFolder

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
ARRAYS = {"a/kernel": RNG.normal(size=(3, 4)).astype(np.float32), "b": np.arange(5)}
PIXELS = RNG.integers(0, 256, (2, 4, 4, 1)).astype(np.uint8)
ROWS = RNG.integers(0, 256, (2, 3072)).astype(np.uint8)


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, how a genuine one is made, and what reads it."""

    file: str
    genuine: Callable[[], bytes]
    read: Callable[[Path], Any]


@cache
def ops() -> ModuleType:
    """The writers of tests/importers/conftest.py."""
    spec = importlib.util.spec_from_file_location("ops", ROOT / "tests" / "importers" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(save: Callable[[io.BytesIO], Any]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def batch() -> bytes:
    return pickle.dumps({b"data": ROWS, b"labels": [3, 7]}, protocol=2)


def tar(mode: str) -> bytes:
    def save(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode=mode) as archive:
            info = tarfile.TarInfo("cifar-10-batches-py/test_batch")
            info.size = len(batch())
            archive.addfile(info, io.BytesIO(batch()))

    return written(save)


def image(file_format: str) -> Kind:
    picture = Image.fromarray(RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8))
    return Kind(f"a.{file_format}", lambda: written(lambda file: picture.save(file, file_format)), read_image)


def torch_zip() -> bytes:
    array = ARRAYS["a/kernel"]
    return written(lambda file: ops().torch_zip(file, ops().tensor_of("0", array), {"0": array.tobytes()}))


def torch_legacy() -> bytes:
    array = ARRAYS["a/kernel"]
    return ops().torch_legacy(ops().tensor_of("0", array, b"N"), {"0": array})


def edm() -> bytes:
    return ops().edm_pickle(ops().dictionary({"a": ops().nested_tensor(ARRAYS["a/kernel"])}))


def safetensors() -> bytes:
    array = ARRAYS["a/kernel"]
    head = json.dumps({"a": {"dtype": "F32", "shape": array.shape, "data_offsets": [0, array.nbytes]}}).encode()
    return len(head).to_bytes(8, "little") + head + array.tobytes()


def flax() -> bytes:
    def packed(array: np.ndarray) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    return msgpack.packb({"params": {name: packed(array) for name, array in ARRAYS.items()}, "step": 3})


def manifest() -> bytes:
    facts = {"shape": [8, 8, 1], "levels": 17, "data": None, "plugins": {"a.py": "1"}, "imported": None, "run": "x"}
    return json.dumps(
        facts | {"sessions": [{"command": ["vdmkit"]}], "kept": {"b": "2"}, "newest_checkpoint": 3}
    ).encode()


def metrics() -> bytes:
    return b"".join(json.dumps({"step": n, "train/bpd": n / 7}).encode() + b"\n" for n in range(5))


def read_npz(path: Path) -> None:
    Npz(path=str(path)).load("train")


KINDS = {
    "recipe": Kind("a.toml", (ROOT / "recipes" / "digits.toml").read_bytes, load_recipe),
    "tar": Kind("a.tar", lambda: tar("w"), lambda path: Cifar10(path=str(path)).load("test")),
    "gzip": Kind("a.tar.gz", lambda: tar("w:gz"), lambda path: Cifar10(path=str(path)).load("test")),
    "pickle": Kind("a", batch, lambda path: array_in(read_pickle(path.read_bytes(), "a"), b"data", "a")),
    "batch": Kind("test_batch", batch, lambda path: Cifar10(path=str(path.parent)).load("test")),
    "npz": Kind("a.npz", lambda: written(lambda file: np.savez(file, train=PIXELS)), read_npz),
    "npz, packed": Kind("b.npz", lambda: written(lambda file: np.savez_compressed(file, train=PIXELS)), read_npz),
    "npy": Kind(
        "a.npy",
        lambda: written(lambda file: np.save(file, PIXELS)),
        lambda path: list_images([path], (4, 4, 1)).read(0, 2),
    ),
    "png": image("png"),
    "jpeg": image("jpeg"),
    "webp": image("webp"),
    "flax": Kind("a.msgpack", flax, read_checkpoint),
    "torch": Kind("a.pt", torch_zip, read_checkpoint),
    "torch before 1.6": Kind("b.pt", torch_legacy, read_checkpoint),
    "edm": Kind("a.pkl", edm, read_checkpoint),
    "safetensors": Kind("a.safetensors", safetensors, read_checkpoint),
    "manifest": Kind("manifest.json", manifest, lambda path: RunFolder(path.parent).provenance()),
    "metrics": Kind("metrics.jsonl", metrics, lambda path: read_metrics(path.parent)),
    "checksums": Kind("checksums.json", lambda: b'{"a": "12"}', lambda path: what_is_damaged(path.parent)),
    "packed": Kind("data.json", lambda: b'{"version": 1, "shape": [8, 8, 1]}', lambda path: read_sidecar(path.parent)),
}


def changed(data: bytes, choices: bytes) -> bytes:
    """The file with up to eight changes, each chosen by eight bytes: what is done, where, and with which bytes."""
    for start in range(0, len(choices) - 7, 8):
        what, length, *new = choices[start : start + 8]
        at = int.from_bytes(new[:2]) * (len(data) + 1) >> 16
        piece = bytes(new[2 : 3 + length % 4])
        if what % 5 == 0:
            data = data[:at] + piece + data[at + len(piece) :]
        elif what % 5 == 1:
            data = data[:at] + piece + data[at:]
        elif what % 5 == 2:
            data = data[:at] + data[at + 1 + length % 32 :]
        elif what % 5 == 3:
            data = data[:at] + data[max(0, at - length) : at] + data[at:]
        else:
            data = data[:at] if at > len(data) // 2 else data
    return data


_watched: list[list[str]] = []


def watch(event: str, arguments: tuple) -> None:
    """Notes processes that are started, and files that are written, while a file is read."""
    if _watched and (
        event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.remove", "os.rename", "os.mkdir")
        or (event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"))
    ):
        _watched[-1].append(f"{event} {arguments}")


sys.addaudithook(watch)


def fuzz(kind: Kind, folder: Path, count: int, seed: int) -> None:
    """Reads `count` changed files of a kind."""
    genuine = kind.genuine()
    path = folder / kind.file
    path.write_bytes(genuine)

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(st.binary(min_size=8, max_size=64))
    def read_changed(choices: bytes) -> None:
        path.write_bytes(changed(genuine, choices))
        done = list[str]()
        _watched.append(done)
        try:
            with suppress(VdmkitError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind.read(path)
        finally:
            _watched.pop()
        assert not done

    read_changed()


@pytest.mark.costly
@pytest.mark.parametrize("name", KINDS)
def test_a_few_of_each_kind(name, tmp_path, chosen):
    """False if a damaged or hostile file ended in a traceback, wrote a file or started a process."""
    fuzz(KINDS[name], tmp_path, 200, chosen.seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_of_each_kind(name, tmp_path, chosen):
    """False if one of ten thousand damaged or hostile files did."""
    fuzz(KINDS[name], tmp_path, chosen.cases(10_000), chosen.seed)
