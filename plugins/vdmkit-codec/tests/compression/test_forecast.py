# SPDX-License-Identifier: Apache-2.0
"""`compress --dry-run` against the file that is written: all of it but the rate's own Monte Carlo error."""

from collections.abc import Callable

import numpy as np
import pytest
from vdmkit_codec.coding import Coding
from vdmkit_codec.container import DIGEST, Chunk, open_writer, size_of_file
from vdmkit_codec.encoding import write_file
from vdmkit_codec.forecast import Rate, expected_rate, forecast, shares_of_pixels

from vdmkit.data.folder import ImageList
from vdmkit.errors import DataError
from vdmkit.likelihood import VariationalBound
from vdmkit.registry import Choice

COUNTS = (1, 10, 100, 297)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_what_is_around_the_payloads_is_exact(tmp_path, named: bool, count: int) -> None:
    """The size of header, chunk records, names and end is forecast exactly."""
    header, names = {"a": list(range(100)), "b": 0.5}, [f"{i} é.png" for i in range(count)] if named else None
    sizes = [min(30, count - first) for first in range(0, count, 30)]
    payloads = [np.random.default_rng(size).bytes(size) for size in sizes]
    with open_writer(tmp_path / "a.vdmz", header, resume=False) as writer:
        for size, payload in zip(sizes, payloads, strict=True):
            writer.append(Chunk(size, payload, bytes(DIGEST)))
        writer.finish(names)
    parts = [(size, len(payload)) for size, payload in zip(sizes, payloads, strict=True)]
    assert size_of_file(header, parts, names) == (tmp_path / "a.vdmz").stat().st_size


@pytest.fixture(scope="module")
def coding_of(learned, make_codec) -> Callable[[int], Coding]:
    """A codec of four steps and groups of so many images, and the bound that it was made of."""

    def build(group: int) -> Coding:
        kernel, grid = Choice("kernel", "mixture"), Choice("grid", "gamma")
        bound = VariationalBound(steps=4, kernel=kernel, grid=grid)
        codec = make_codec(learned, 4, kernel, grid, group=group)
        return Coding(codec, bound, {"step": 7, "weights": "raw"})

    return build


# Bytes. Up to ten images the stack is known to two words. Then its 64 heads, each even from 32 to 64 bits, differ by
# four times 9 bytes, their standard deviation; and groups of up to 64 images ask for some 20 words more or fewer, as
# they grow. The other terms are exact.
@pytest.mark.costly
@pytest.mark.parametrize(("group", "few", "many"), [(8, 8, 37), (64, 8, 37 + 80)])
@pytest.mark.parametrize("count", COUNTS)
def test_the_file_is_as_long_as_foretold(tmp_path, coding_of, data, group, few, many, count) -> None:
    """`--dry-run` forecasts all bytes of a file, of which the images are only a part."""
    coding = coding_of(group)
    images = ImageList((4, 4, 1), [f"{i}.png" for i in range(count)], [], data.sample(count, 11))
    written = write_file(coding, images, tmp_path / "a.vdmz", chunk=1024, resume=False, verify=False)
    expected = expected_rate(coding, images, chunk=1024, seed=0)
    allowed, bits = (few if count <= 10 else many), 8 / (16 * count)
    assert abs(_besides(expected, count) - _besides(written, count)) <= allowed
    assert abs(expected.initial - written.initial) <= bits * allowed
    parts = expected.net + expected.initial
    assert abs((expected.gross - parts) - (written.gross - written.net - written.initial)) <= bits * allowed
    assert expected.bytes == pytest.approx(expected.gross / bits)
    # Both are unbiased estimates of one bound; of one image, the two of a bound and one of the file say little.
    errors = np.hypot(expected.half_width_monte_carlo, expected.half_width_sample)
    assert abs(expected.net - written.net) < 2 * errors + 4 * 0.4 / np.sqrt(count)


def _besides(found, count: int) -> float:
    """Returns the bytes of a file that do not hold images."""
    return found.bytes - found.net * 16 * count / 8


@pytest.mark.costly
@pytest.mark.parametrize("count", [10, 67])
def test_many_chunks(tmp_path, coding_of, data, count) -> None:
    """The initial bits of every chunk are counted."""
    images = ImageList((4, 4, 1), None, [], data.sample(count, 12))
    coding = coding_of(8)
    written = write_file(coding, images, tmp_path / "a.vdmz", chunk=9, resume=False, verify=False)
    expected = expected_rate(coding, images, chunk=9, seed=0)
    assert abs(_besides(expected, count) - _besides(written, count)) <= 8 * -(-count // 9)


def test_images_that_are_stored(tmp_path, coding_of) -> None:
    """Images with levels that the model lacks are forecast at their size uncompressed."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
    images = ImageList((4, 4, 1), None, [], pixels)
    coding = coding_of(8)
    written = write_file(coding, images, tmp_path / "a.vdmz", chunk=1024, resume=False, verify=False)
    expected = expected_rate(coding, images, chunk=1024, seed=0)
    assert (expected.net, expected.stored, written.stored) == (8, 20, 20)
    assert abs(expected.bytes - written.bytes) <= 37
    assert "stored uncompressed" in str(expected)


def test_no_images(coding_of) -> None:
    """An empty folder raises DataError."""
    with pytest.raises(DataError, match="there are no images"):
        expected_rate(coding_of(8), ImageList((4, 4, 1), [], []), chunk=9, seed=0)


def test_images_that_are_all_the_same(make_codec, learned) -> None:
    """Images of a single level, whose entropy is zero, have a forecast."""
    black = np.zeros((5, 4, 4, 1), np.uint8)
    rate = Rate(0.1, 0.2, 0.0, raw=0.0, stored=0.0, variance=0.0, pixels=shares_of_pixels(black))
    assert forecast(make_codec(learned).chunk_code(8), rate, 5).bytes > 8 + 5 // 8


@pytest.mark.costly
def test_groups_that_are_not_looked_at(make_codec, learned) -> None:
    """A chunk of many small groups is forecast quickly, with its last groups."""
    rate = Rate(0.0, 23.0, 0.0, raw=0.0, stored=0.0, variance=0.1, pixels=np.full(16, 1 / 16))
    code = make_codec(learned, group=1).chunk_code(1)
    few, many = 4096, 40_000  # of as many lanes
    bits = [8 * forecast(code, rate, count).bytes for count in (few, many)]
    assert abs((bits[1] - bits[0]) / (many - few) - (23 + 8)) < 0.02  # of each a group's size
