# SPDX-License-Identifier: Apache-2.0
"""Files of twenty images that were coded with two versions of Python and JAX, with their model."""

import hashlib
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_codec.codec import codec_of
from vdmkit_codec.coding import fingerprint
from vdmkit_codec.container import DIGEST, Chunk, open_reader, open_writer
from vdmkit_codec.decoding import images_of_file

GOLDEN = Path(__file__).parent / "golden"
NAMES = [f"jax_{version}_{kernel}" for version in ("0_10", "0_12") for kernel in ("mixture", "gaussian")]


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


@pytest.mark.parametrize("name", NAMES)
def test_files_of_other_versions_of_jax_decode(model, name) -> None:
    """A file decodes to its images, whichever version of Python and JAX coded it."""
    np.testing.assert_array_equal(decoded(GOLDEN / f"{name}.vdmz", model), np.load(GOLDEN / "images.npy"))


def test_some_file_is_of_a_different_version_of_jax() -> None:
    """The test above covers a version of JAX other than the installed one."""
    machines = set()
    for name in NAMES:
        with open_reader(GOLDEN / f"{name}.vdmz") as reader:
            machines.add(reader.header["machine"])
    assert machines - {fingerprint()["versions"]}


@pytest.mark.costly
@pytest.mark.parametrize("name", NAMES)
def test_the_payload_is_reproduced(tmp_path, model, name) -> None:
    """Encoding the same images again gives the same bytes of payload, and a file that decodes to them."""
    images = np.load(GOLDEN / "images.npy")
    with open_reader(GOLDEN / f"{name}.vdmz") as reader:
        codec, header, expected = codec_of(reader.header, model, fingerprint()), reader.header, reader.chunk(0).payload
    payload, _ = codec.chunk_code().encode(images)
    assert payload.to_bytes() == expected
    with open_writer(tmp_path / "a.vdmz", header, resume=False) as writer:
        writer.append(Chunk(len(images), payload.to_bytes(), hashlib.sha256(images.tobytes()).digest()[:DIGEST]))
        writer.finish(None)
    np.testing.assert_array_equal(decoded(tmp_path / "a.vdmz", model), images)
