# SPDX-License-Identifier: Apache-2.0
"""Twenty images in files of both versions of the format and of two versions of Python and JAX, with their model."""

import hashlib
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_codec.codec import fingerprint, images_of_file
from vdmkit_codec.compression import codec_of
from vdmkit_codec.container import Chunk, open_reader, open_writer

GOLDEN = Path(__file__).parent / "golden"
OLDEST = [
    "mixture",
    "gaussian",
    "version_2_mixture",
    "version_2_gaussian",
    "version_2_large",
]  # Python 3.11, JAX 0.10.2
NEWEST = ["newest_mixture", "newest_gaussian"]  # Python 3.13, JAX 0.12.0


@pytest.fixture(scope="module")
def model(learned):
    """Its arrays as they were written."""
    with np.load(GOLDEN / "model.npz") as arrays:
        kernel, bias, counts = (jnp.asarray(arrays[name]) for name in ("kernel", "bias", "counts"))
    where = lambda m: (m.network.kernel, m.network.bias, m.prediction.level_counts)  # noqa: E731
    return eqx.tree_at(where, learned, (kernel, bias, counts))


def decoded(path: Path, model) -> np.ndarray:
    with open_reader(path) as reader:
        codec = codec_of(reader.header, model, fingerprint())
        return np.concatenate([images for _, images in images_of_file(codec, reader, range(reader.images))])


def write(path: Path, codec, images: np.ndarray, small: int = 8192, header: dict | None = None) -> None:
    """Also how golden files of version 2 were made: `large` and `newest_gaussian` with small=0 and a run's header."""
    with open_writer(path, codec.header(fingerprint()) | (header or {}), resume=False, small=small) as writer:
        payload, _ = codec.chunk_code().encode(images)
        writer.append(Chunk(len(images), payload.to_bytes(), hashlib.sha256(images.tobytes()).digest()))
        writer.finish(None)


@pytest.mark.parametrize("name", OLDEST + NEWEST)
def test_a_file_of_long_ago_decodes(model, name) -> None:
    """False if files that users have, of another version of Python, JAX or the format, could no longer be read."""
    np.testing.assert_array_equal(decoded(GOLDEN / f"{name}.vdmz", model), np.load(GOLDEN / "images.npy"))


def test_files_are_of_both_versions() -> None:
    """False if the test above read files of one version of the format only, or of none but these versions of JAX."""
    formats, machines = set(), set()
    for name in OLDEST + NEWEST:
        formats.add((GOLDEN / f"{name}.vdmz").read_bytes()[4])
        with open_reader(GOLDEN / f"{name}.vdmz") as reader:
            machines.add(reader.header["machine"])
    assert formats == {1, 2}
    assert machines - {fingerprint()["versions"]}


@pytest.mark.costly
def test_it_is_written_again(tmp_path, model) -> None:
    """False if its codec could still read but no longer write."""
    images = np.load(GOLDEN / "images.npy")
    with open_reader(GOLDEN / "mixture.vdmz") as reader:
        codec = codec_of(reader.header, model, fingerprint())
    write(tmp_path / "a.vdmz", codec, images)
    np.testing.assert_array_equal(decoded(tmp_path / "a.vdmz", model), images)
