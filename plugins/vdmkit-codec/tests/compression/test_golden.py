# SPDX-License-Identifier: Apache-2.0
"""Twenty images in a file of long ago, with the model that wrote it."""

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


def write(path: Path, codec, images: np.ndarray) -> None:
    """Also how the golden file was made, if it must ever be made anew: then older files are no longer read."""
    with open_writer(path, codec.header(fingerprint()), resume=False) as writer:
        payload, _ = codec.chunk_code(codec.group).encode(images)
        writer.append(Chunk(len(images), payload.to_bytes(), hashlib.sha256(images.tobytes()).digest()))
        writer.finish(None)


@pytest.mark.parametrize("kernel", ["mixture", "gaussian"])
def test_a_file_of_long_ago_decodes(model, kernel) -> None:
    """False if files that users have could no longer be read, on this machine and these versions."""
    np.testing.assert_array_equal(decoded(GOLDEN / f"{kernel}.vdmz", model), np.load(GOLDEN / "images.npy"))


def test_it_is_written_again(tmp_path, model) -> None:
    """False if its codec could still read but no longer write."""
    images = np.load(GOLDEN / "images.npy")
    with open_reader(GOLDEN / "mixture.vdmz") as reader:
        codec = codec_of(reader.header, model, fingerprint())
    write(tmp_path / "a.vdmz", codec, images)
    np.testing.assert_array_equal(decoded(tmp_path / "a.vdmz", model), images)
