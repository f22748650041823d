# SPDX-License-Identifier: Apache-2.0
"""Names that `vdmkit compress` and `vdmkit decompress` cannot write to, before any work is done."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from vdmkit_codec.coding import fingerprint
from vdmkit_codec.commands import of_model_levels
from vdmkit_codec.container import DIGEST, Chunk, open_writer
from vdmkit_codec.encoding import Compressed, resumable
from vdmkit_codec.forecast import ExpectedRate

from vdmkit.devices import Arithmetic
from vdmkit.errors import CodecError, DataError, words_of


def test_a_folder_of_the_name_is_refused_before_the_work(program, tmp_path):
    """A folder with the name of the output is refused before the images are coded."""
    (tmp_path / "x.vdmz").mkdir()
    result = program("compress", "a.npy", "--ckpt", "run", "-o", str(tmp_path / "x.vdmz"))
    assert (result.code, "x.vdmz: is a folder" in result.err) == (2, True)


@pytest.mark.parametrize("output", [".", "./", "/"])
def test_a_folder_without_a_name_is_refused(program, output):
    """An output without a file name is refused."""
    result = program("decompress", "a.vdmz", "--ckpt", "run", "-o", output)
    assert (result.code, "expected the name of a new folder" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("levels", "reason"),
    [((), "there are no images"), ((216,), r"a pixel is 216: expected 0\.\.16"), ((216, 17), "a pixel is 216")],
)
def test_images_of_another_scale_are_the_users_mistake(levels, reason):
    """No images, or images with levels that the model lacks, raise DataError."""
    images = np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 8, 8, 1), np.uint8)
    with pytest.raises(DataError, match=rf"^a\.npy: {reason}"):
        of_model_levels([Path("a.npy")], images, 17)


def test_one_image_of_another_scale_is_not_refused():
    """A single image with other levels does not refuse the list."""
    images = np.array([216, 16], np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(of_model_levels([Path("a.npy")], images, 17), images[1:])


def test_a_file_larger_than_the_images_says_so():
    """A file that is larger than the given images says so."""
    larger, smaller = (Compressed(1, 0, 1303, given, 162.9, 4.1, 32.0, "T = 3 steps") for given in (64, 2000))
    assert str(larger).startswith("1 image in 1,303 bytes")
    assert str(larger).endswith("\nlarger than the given files, which have 64 bytes")
    assert "larger" not in str(smaller)


def test_a_file_that_is_none_is_said_to_be_so(program):
    """`vdmkit inspect` of a pipe is refused with the reason."""
    os.mkfifo(program.cwd / "fifo")
    result = program("inspect", "fifo")
    expected = "fifo: a FIFO (named pipe), where a file is expected. Give a file that `vdmkit compress` wrote.\n"
    assert (result.code, result.err) == (1, expected)


def test_the_expected_rate_says_its_precision():
    """The expected rate states the precision of its arithmetic."""
    rate = ExpectedRate(4, 4, 0, 99, 3.0, 2.0, 0.1, 0.0, 0.5, "T = 2", Arithmetic("float32", "high", "2 x gpu"))
    assert str(rate).endswith("the bound in float32, matmul precision high, 2 x gpu")


def test_files_of_profile_host_know_the_precision_of_products():
    """The fingerprint of the machine includes the precision of matrix products."""
    before = fingerprint()
    with jax.enable_x64(True), jax.default_matmul_precision("tensorfloat32"):
        assert fingerprint() == before | {"flags": f"{before['flags']} matmul_precision=tensorfloat32".strip()}


def test_a_run_without_its_option_is_only_missing(program):
    """A missing `--ckpt` is reported as such."""
    assert program("compress", "images.npy").err.endswith("Error: Missing option '--ckpt'.\n")


@contextmanager
def little_room() -> Iterator[None]:
    """No file may grow beyond 8192 bytes: a write beyond fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_was_compressed_is_gone_on_with(tmp_path):
    """The message of a full disk recommends --resume if and only if a chunk was written."""
    out, noise = tmp_path / "a.vdmz", bytes(10_000)
    with (  # noqa: PT012
        pytest.raises(CodecError, match=r"a\.vdmz\.part: File too large\. Free space there, .* with --resume"),
        resumable(out),
        open_writer(out, {}, resume=False) as writer,
    ):
        writer.append(Chunk(1, b"1", bytes(DIGEST)))
        with little_room():
            writer.append(Chunk(1, noise, bytes(DIGEST)))
    with (
        pytest.raises(OSError, match="File too large") as failed,
        open_writer(tmp_path / "b.vdmz", {}, resume=False) as writer,
        little_room(),
    ):
        writer.append(Chunk(1, noise, bytes(DIGEST)))
    assert words_of(failed.value).startswith(f"{tmp_path / 'b.vdmz.part'}: File too large")
