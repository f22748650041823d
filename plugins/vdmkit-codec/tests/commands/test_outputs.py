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
from vdmkit_codec.codec import Compressed, ExpectedRate, fingerprint
from vdmkit_codec.codec._compress import _resumable
from vdmkit_codec.commands import _compress
from vdmkit_codec.container import Chunk, open_writer

from vdmkit.devices import Arithmetic
from vdmkit.errors import CodecError, DataError, words_of


def test_a_folder_of_the_name_is_refused_before_the_work(program, tmp_path):
    """Otherwise hours of coding end with a file that cannot be given its name."""
    (tmp_path / "x.vdmz").mkdir()
    result = program("compress", "a.npy", "--ckpt", "run", "-o", str(tmp_path / "x.vdmz"))
    assert (result.code, "x.vdmz: is a folder" in result.err) == (2, True)


@pytest.mark.parametrize("output", [".", "./", "/"])
def test_a_folder_without_a_name_is_refused(program, output):
    """Otherwise `-o .` in an empty folder is called a defect."""
    result = program("decompress", "a.vdmz", "--ckpt", "run", "-o", output)
    assert (result.code, "expected the name of a new folder" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("levels", "reason"),
    [((), "there are no images"), ((216,), r"a pixel is 216: expected 0\.\.16"), ((216, 17), "a pixel is 216")],
)
def test_images_of_another_scale_are_the_users_mistake(levels, reason):
    """False if pixels that the model does not know were called the model's defect, or no images vdmkit's."""
    images = np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 8, 8, 1), np.uint8)
    with pytest.raises(DataError, match=rf"^a\.npy: {reason}"):
        _compress._known([Path("a.npy")], images, 17)


def test_one_image_of_another_scale_is_not_refused():
    """False if an image that would be stored as it is made a whole list impossible to compress."""
    images = np.array([216, 16], np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(_compress._known([Path("a.npy")], images, 17), images[1:])


def test_a_file_larger_than_the_images_says_so():
    """False if compression that makes a few images larger passed without a word."""
    larger, smaller = (Compressed(1, 0, 1303, given, 162.9, 4.1, 32.0, "T = 3 steps") for given in (64, 2000))
    assert str(larger).startswith("1 image in 1,303 bytes")
    assert str(larger).endswith("\nlarger than the images as they were given, in 64 bytes")
    assert "larger" not in str(smaller)


def test_a_file_that_is_none_is_said_to_be_so(program):
    """False if `vdmkit inspect` of a pipe hung, or called it a missing file."""
    os.mkfifo(program.cwd / "fifo")
    result = program("inspect", "fifo")
    expected = "fifo: a FIFO (named pipe), where a file is expected. Give a file that `vdmkit compress` wrote.\n"
    assert (result.code, result.err) == (1, expected)


def test_the_expected_rate_says_its_precision():
    """A rate would be read as if it had been predicted in another precision."""
    rate = ExpectedRate(4, 4, 0, 99, 3.0, 2.0, 0.1, 0.0, 0.5, "T = 2", Arithmetic("float32", "high", "2 x gpu"))
    assert str(rate).endswith("the bound in float32, matmul precision high, 2 x gpu")


def test_files_of_profile_host_know_the_precision_of_products():
    """False if a file for one machine decoded in another precision of matrix products."""
    before = fingerprint()
    with jax.enable_x64(True), jax.default_matmul_precision("tensorfloat32"):
        assert fingerprint() == before | {"flags": f"{before['flags']} matmul_precision=tensorfloat32".strip()}


def test_a_run_without_its_option_is_only_missing(program):
    """False if images were taken for a run whose `--ckpt` was forgotten."""
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
    """False if a full disk's advice led to a refusal: with chunks on the disk it takes --resume."""
    out, noise = tmp_path / "a.vdmz", bytes(10_000)
    with (  # noqa: PT012
        pytest.raises(CodecError, match=r"a\.vdmz\.part: File too large\. Free space there, .* with --resume"),
        _resumable(out),
        open_writer(out, {}, resume=False) as writer,
    ):
        writer.append(Chunk(1, b"1", bytes(32)))
        with little_room():
            writer.append(Chunk(1, noise, bytes(32)))
    with (
        pytest.raises(OSError, match="File too large") as failed,
        open_writer(tmp_path / "b.vdmz", {}, resume=False) as writer,
        little_room(),
    ):
        writer.append(Chunk(1, noise, bytes(32)))
    assert words_of(failed.value).startswith(f"{tmp_path / 'b.vdmz.part'}: File too large")
