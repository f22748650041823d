# SPDX-License-Identifier: Apache-2.0
"""Every kind of file that vdmkit reads: how to make a genuine one, what to change in it, and what reads it.

Where a checksum would reveal every change, the contents are changed and `wrap` computes a correct checksum, as an
attacker would.
"""

import gzip
import hashlib
import importlib.util
import io
import json
import pickle
import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import msgpack
import numpy as np
from kinds_of_images import PICTURES, parquet, picture, read_folder, read_local, read_parquet
from kinds_of_vdmz import large, named, read_and_write, resealed
from PIL import Image
from vdmkit_codec.container import DIGEST, Chunk, open_reader, pack_file
from vdmkit_codec.inspection import inspect

from vdmkit.cli.options import of_estimator
from vdmkit.data import Cifar10, ImageNetNew, Npz
from vdmkit.data.batches import batches
from vdmkit.data.cifar10 import array_in, read_pickle
from vdmkit.data.folder import list_images, read_image
from vdmkit.data.packed import read_metadata
from vdmkit.data.sources import identified
from vdmkit.errors import VdmkitError
from vdmkit.experiments import RunFolder
from vdmkit.importers.formats import read_checkpoint
from vdmkit.io import seal_of, sealed_line
from vdmkit.progress import Kept
from vdmkit.recipes import load_recipe
from vdmkit.report import read_metrics
from vdmkit.report.run_contents import read_contents
from vdmkit.training.checkpoints import CheckpointStore, read_step, what_is_damaged, write_checksums
from vdmkit.training.health import read_troubles

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
ARRAYS = {"a/kernel": RNG.normal(size=(3, 4)).astype(np.float32), "b": np.arange(5)}
PIXELS = RNG.integers(0, 256, (2, 4, 4, 1)).astype(np.uint8)
ROWS = RNG.integers(0, 256, (2, 3072)).astype(np.uint8)


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, the part that is changed, its reader, and what is wrapped around the changed part."""

    file: str
    genuine: Callable[[], bytes]
    read: Callable[[Path], Any]
    wrap: Callable[[bytes], bytes] = bytes


@cache
def ops() -> ModuleType:
    """Returns the writers of tests/importers/conftest.py."""
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


def tar(mode: str, data: bytes) -> bytes:
    def save(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode=mode) as archive:
            info = tarfile.TarInfo("cifar-10-batches-py/test_batch")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    return written(save)


def npy(array: np.ndarray = PIXELS) -> bytes:
    return written(lambda file: np.save(file, array))


def zipped(name: str) -> Callable[[bytes], bytes]:
    """Returns a function that puts bytes into a zip file with correct checksums."""

    def wrap(data: bytes) -> bytes:
        def save(file: io.BytesIO) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name, data)

        return written(save)

    return wrap


def with_checksums(data: bytes) -> bytes:
    """Computes the checksum of every chunk of a PNG file."""
    at, parts = 8, [data[:8]]
    while at + 8 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        body = data[at + 4 : at + 8 + size]
        parts += [data[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + size
    return b"".join(parts)


def sealed(data: bytes) -> bytes:
    """Adds the SHA-256 to the facts, if they are still valid JSON."""
    try:
        facts = json.loads(data)
        return json.dumps({**facts, "sha256": seal_of(facts)}).encode()
    except (ValueError, TypeError, RecursionError):
        return data


def sealed_lines(data: bytes) -> bytes:
    """Adds the checksum to every line that is still a line of values."""

    def seal(line: bytes) -> bytes:
        try:
            return sealed_line(json.loads(line)).encode()
        except (ValueError, TypeError, RecursionError):
            return line

    return b"".join(map(seal, data.splitlines(keepends=True)))


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


def health() -> bytes:
    return json.dumps({"findings": [{"sign": "loss", "step": 3, "message": "it jumps"}]}).encode()


def results() -> bytes:
    return json.dumps({"bpd": 1.5, "bpd_low": 1.25, "bpd_high": 1.75, "terms": {"prior": 0.5}, "step": 3}).encode()


def torch_program() -> bytes:
    return ops().tensor_of("0", ARRAYS["a/kernel"])


def torch_zip_of(program: bytes) -> bytes:
    return written(lambda file: ops().torch_zip(file, program, {"0": ARRAYS["a/kernel"].tobytes()}))


def read_results(path: Path) -> None:
    (path.parent / "resolved.toml").write_text("")
    (path.parent / "manifest.json").write_text("{}")
    read_contents(path.parent)


def coding_facts() -> bytes:
    return json.dumps({"profile": "portable", "T": 10, "shape": [8, 8, 1], "gamma": [-8.0, 5.0], "group": 4}).encode()


def coded(payload: bytes = bytes(range(40))) -> bytes:
    header = {"profile": "portable", "T": 10, "shape": [8, 8, 1], "gamma": [-8.0, 0.1, 5.0], "group": 4, "chunk": 4}
    return pack_file(header, [Chunk(2, payload, hashlib.sha256(payload).digest()[:DIGEST])], ["a.png", "b.png"])


def coded_by(data: bytes) -> bytes:
    """Returns a compressed file with this header, or the bytes themselves if they are not a header."""
    try:
        return pack_file(json.loads(data), [Chunk(2, bytes(40), bytes(DIGEST))])
    except (ValueError, TypeError, RecursionError, AttributeError, OverflowError):
        return data


def read_coded(path: Path) -> None:
    with suppress(VdmkitError), open_reader(path) as reader:
        for number in range(len(reader.chunks)):
            with suppress(VdmkitError):
                reader.payload(number)
    with suppress(VdmkitError):
        str(inspect(path))


BETWEEN = b"\n--- next file ---\n"


def small_state() -> dict[str, Any]:
    return {"a": jnp.asarray(ARRAYS["a/kernel"]), "b": jnp.arange(5)}


def small_batches() -> Any:
    images = identified(np.zeros((4, 4, 4, 1), np.uint8), 2, name="a", split="train")
    return batches(images, [], batch_size=2, seed=0)


@cache
def of_checkpoint() -> tuple[list[str], bytes]:
    """Returns the names of the files of a checkpoint, and their contents in the same order."""
    with tempfile.TemporaryDirectory() as folder:
        CheckpointStore(Path(folder), keep_last=1, keep_best=0).save(3, small_state(), small_batches(), {"run": "x"})
        root = Path(folder, "3")
        names = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
        names.remove("checksums.json")
        return names, BETWEEN.join((root / name).read_bytes() for name in names)


def read_orbax(path: Path) -> None:
    """Reads a checkpoint, with correct checksums for whatever its files contain."""
    root = path.parent / "3"
    shutil.rmtree(root, ignore_errors=True)
    for name, data in zip(of_checkpoint()[0], path.read_bytes().split(BETWEEN), strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    write_checksums(root)
    read_step(root, small_state(), small_batches())


def read_grid(path: Path) -> None:
    load_recipe(ROOT / "recipes" / "digits.toml", of_estimator(None, None, str(path)))


def grid() -> bytes:
    return b'name = "gammas"\ngammas = [-8.0, -2.5, 0.1, 5.0]\n'


def of_cifar(path: Path) -> None:
    Cifar10(path=str(path)).load("test")


def of_list(path: Path) -> None:
    list_images([path], (4, 4, 1)).read(0, 2)


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, 1)


def metadata() -> bytes:
    identity = {"name": "a", "count": 2, "sha256": "0", "low": 0.0, "high": 9.0, "published": None}
    splits = {name: {**identity, "split": name} for name in ("train", "test")}
    facts = {"shape": [4, 4, 1], "levels": 17, "classes": 0, "files": {"fingerprints-train.npy": "0"}}
    return json.dumps(facts | splits).encode()


def checkpoint() -> bytes:
    return of_checkpoint()[1]


def read_kept(path: Path) -> None:
    Kept(path.parent).read(3)


def of_imagenet(path: Path) -> None:
    ImageNetNew(path=str(path.parent)).load("test")


KINDS = {
    "recipe": Kind("a.toml", (ROOT / "recipes" / "digits.toml").read_bytes, load_recipe),
    "grid": Kind("grid.toml", grid, read_grid),
    "tar": Kind("a.tar", lambda: tar("w", batch()), of_cifar),
    "tar in gzip": Kind("a.tar.gz", lambda: tar("w", batch()), of_cifar, gzipped),
    "gzip": Kind("a.tar.gz", lambda: gzipped(tar("w", batch())), of_cifar),
    "pickle": Kind("a", batch, lambda path: array_in(read_pickle(path.read_bytes(), "a"), b"data", "a")),
    "pickle in tar": Kind("b.tar", batch, of_cifar, lambda data: tar("w", data)),
    "cifar10": Kind("test_batch", batch, lambda path: Cifar10(path=str(path.parent)).load("test")),
    "imagenet": Kind("val_data", batch, of_imagenet),
    "npz": Kind("a.npz", lambda: written(lambda file: np.savez(file, train=PIXELS)), read_npz),
    "npy in npz": Kind("b.npz", npy, read_npz, zipped("train.npy")),
    "kept": Kind(
        "3.npz", lambda: npy(np.array(3)), lambda path: Kept(path.parent).read(3), zipped("number_of_part.npy")
    ),
    "npy": Kind("a.npy", npy, of_list),
    "png": image("png"),
    "png, right checksums": Kind("b.png", image("png").genuine, read_image, with_checksums),
    "jpeg": image("jpeg"),
    "webp": image("webp"),
    "flax": Kind("a.msgpack", flax, read_checkpoint),
    "torch": Kind("a.pt", torch_zip, read_checkpoint),
    "pickle in torch": Kind("c.pt", torch_program, read_checkpoint, torch_zip_of),
    "torch before 1.6": Kind("b.pt", torch_legacy, read_checkpoint),
    "edm": Kind("a.pkl", edm, read_checkpoint),
    "safetensors": Kind("a.safetensors", safetensors, read_checkpoint),
    "manifest": Kind("manifest.json", manifest, lambda path: RunFolder(path.parent).provenance(), sealed),
    "metrics": Kind("metrics.jsonl", metrics, lambda path: read_metrics(path.parent), sealed_lines),
    "checksums": Kind("checksums.json", lambda: b'{"a": "12"}', lambda path: what_is_damaged(path.parent)),
    "packed": Kind("data.json", metadata, lambda path: read_metadata(path.parent), sealed),
    "health": Kind("health.json", health, read_troubles),
    "results": Kind("evaluation.json", results, read_results),
    "orbax": Kind("checkpoint", checkpoint, read_orbax),
    "vdmz": Kind("a.vdmz", coded, read_coded),
    "vdmz, payload": Kind("b.vdmz", lambda: bytes(range(40)), read_coded, coded),
    "vdmz, header": Kind("c.vdmz", coding_facts, read_coded, coded_by),
    "vdmz, right checksums": Kind("d.vdmz", large, read_and_write, resealed),
    "vdmz, names": Kind("e.vdmz", lambda: b'["a.png","b/c.png"]', read_and_write, named),
    "parquet": Kind("a.parquet", parquet, read_parquet),
    "local data set": Kind("b.parquet", parquet, read_local),
    "image folder": Kind("a.png", lambda: picture(PICTURES[1]), read_folder),
    "image folder, right checksums": Kind("c.png", lambda: picture(PICTURES[1]), read_folder, with_checksums),
}

ODD = [b"null", b"NaN", b"-1", b"1e999", b"123456789012345678901", b'"../../x"', b"[" * 200 + b"]" * 200, b"{}", b'""']
ODD += [b"true", b"0.5", b"0", b'"/dev/zero"', b'"\\u0000"', b"-9223372036854775808", b"[[[1]]]", b'{"a": {}}']
VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null')


def changed(data: bytes, choices: bytes) -> bytes:
    """Returns the file with up to eight changes; eight bytes choose the operation, the place and the new bytes."""
    for start in range(0, len(choices) - 7, 8):
        what, length, *new = choices[start : start + 8]
        at = int.from_bytes(new[:2]) * (len(data) + 1) >> 16
        piece = bytes(new[2 : 3 + length % 4])
        if what % 6 == 0:
            data = data[:at] + piece + data[at + len(piece) :]
        elif what % 6 == 1:
            data = data[:at] + piece + data[at:]
        elif what % 6 == 2:
            data = data[:at] + data[at + 1 + length % 32 :]
        elif what % 6 == 3:
            data = data[:at] + data[max(0, at - length) : at] + data[at:]
        elif what % 6 == 4:
            data = data[:at] if at > len(data) // 2 else data
        elif found := VALUE.search(data, at):  # a different value, in JSON and TOML
            data = data[: found.start()] + ODD[length % len(ODD)] + data[found.end() :]
    return data
