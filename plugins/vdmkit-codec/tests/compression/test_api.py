# SPDX-License-Identifier: Apache-2.0
"""Compression in Python: bytes that the commands read too, and images of a file by their numbers."""

import jax
import numpy as np
import pytest
import vdmkit_codec
from vdmkit_codec.coding import default_bound, mixture_gammas

import vdmkit
from vdmkit.errors import CodecError, DataError, RecipeError
from vdmkit.likelihood import VariationalBound
from vdmkit.registry import Choice

SETTINGS = {"steps": 3, "group": 8, "chunk": 9}


@pytest.fixture(scope="module")
def written(learned, images) -> bytes:
    """37 images in five chunks, with names."""
    names = [f"{i}.png" for i in range(37)]
    return vdmkit_codec.compress(learned, images, names=names, **SETTINGS)


def test_arrays_come_back(learned, images, written) -> None:
    """Arrays are compressed and decompressed without a run folder."""
    np.testing.assert_array_equal(vdmkit_codec.decompress(written, learned), images)
    assert vdmkit_codec.inspect(written).images == 37


@pytest.mark.costly
def test_images_by_their_numbers(tmp_path, learned, images, written, monkeypatch) -> None:
    """Images are read by number or slice, and only their chunks are decoded."""
    (tmp_path / "a.vdmz").write_bytes(written)
    read, chunks = vdmkit_codec.container.Reader.payload, []
    monkeypatch.setattr(vdmkit_codec.container.Reader, "payload", lambda self, i: chunks.append(i) or read(self, i))
    with vdmkit_codec.open(tmp_path / "a.vdmz", learned) as archive:
        assert (len(archive), archive.names[36]) == (37, "36.png")
        for which in (0, -1, 20, slice(8, 10), slice(None, None, -9), slice(5, 5)):
            np.testing.assert_array_equal(archive[which], images[which])
        with pytest.raises(IndexError):
            archive[37]
    assert chunks[:3] == [0, 4, 2]
    assert chunks[3:5] == [0, 1]


def test_other_images_are_refused(learned, images) -> None:
    """Images of a different type or shape, and names that do not match, raise DataError."""
    for wrong in (images.astype(np.int64), images[0], images[:, :2]):
        with pytest.raises(DataError, match=r"expected uint8 \(n, 4, 4, 1\)"):
            vdmkit_codec.compress(learned, wrong)
    with pytest.raises(DataError, match="1 names for 37 images"):
        vdmkit_codec.compress(learned, images, names=["a"])
    with pytest.raises(DataError, match="expected a list of texts"):
        vdmkit_codec.compress(learned, images, names="x" * 37)


WRONG = [("steps", 0), ("group", 0), ("group", 10**6), ("chunk", 0), ("chunk", 10**9), ("seed", -1), ("seed", 2**64)]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_settings_that_no_reader_takes_are_refused(learned, images, name, value) -> None:
    """Settings with which no reader could read the file raise RecipeError."""
    with pytest.raises(RecipeError, match=f"{name} = {value!r}: expected"):
        vdmkit_codec.compress(learned, images, **{name: value})


def test_bytes_of_any_kind_and_paths_of_any_kind(tmp_path, learned, images, written) -> None:
    """Files are given as any bytes-like object or any kind of path."""
    path = tmp_path / "a.vdmz"
    path.write_bytes(written)
    for given in (bytearray(written), memoryview(written), str(path), path):
        assert vdmkit_codec.inspect(given).images == 37
        with vdmkit_codec.open(given, learned) as archive:
            np.testing.assert_array_equal(archive[36], images[36])
    with vdmkit_codec.open(path, learned) as archive, pytest.raises(RecipeError, match="jobs = 0: expected"):
        archive.read(0, 1, jobs=0)


def test_another_model_is_refused(oracle, written) -> None:
    """A model that did not compress the file is refused."""
    with pytest.raises(CodecError, match="made with the model"):
        vdmkit_codec.open(written, oracle)


def test_names_exist() -> None:
    """Every public name exists."""
    for name in vdmkit_codec.__all__:
        assert callable(getattr(vdmkit_codec, name))


@pytest.mark.parametrize(("value", "most"), [(4, 8), (255, 16)])
def test_a_chunk_that_would_be_larger_is_stored(learned, value, most) -> None:
    """An image that the model would make larger is stored, without initial bits."""
    alone = np.full((1, 4, 4, 1), value, np.uint8)
    data = vdmkit_codec.compress(learned, alone, **SETTINGS)
    np.testing.assert_array_equal(vdmkit_codec.decompress(data, learned), alone)
    sizes = vdmkit_codec.inspect(data).bytes
    assert sizes["stacks"] <= most + 1
    assert sum(sizes.values()) < 200


def test_each_image_is_stored_by_its_own_levels(learned) -> None:
    """Each stored image takes the bits of its own number of levels."""
    rng = np.random.default_rng(0)
    foreign = rng.integers(0, 5, (30, 4, 4, 1)).astype(np.uint8)
    foreign[7] = rng.integers(200, 256, (4, 4, 1))
    data = vdmkit_codec.compress(learned, foreign, steps=3)
    np.testing.assert_array_equal(vdmkit_codec.decompress(data, learned), foreign)
    assert vdmkit_codec.inspect(data).bytes["stacks"] <= (29 * 16 * np.log2(5) + 16 * 8 + 40) / 8


@pytest.mark.parametrize("steps", [None, 1, 2, 3, 7])
def test_default_steps_cover_the_schedule(learned, steps) -> None:
    """The default steps reach from one end of the schedule to the other, in any number."""
    gammas = mixture_gammas(learned, steps)
    assert gammas[0] == -6
    assert gammas[-1] == 5
    assert len(gammas) == (steps or len(gammas) - 1) + 1
    assert default_bound(learned, steps).gammas(learned.schedule) == pytest.approx(np.array(gammas), abs=1e-5)


def test_default_steps_are_worth_more_than_even_ones(oracle, images) -> None:
    """The default steps have a higher bound than as many that are even in gamma, for the exact posterior."""
    chosen = default_bound(oracle)
    even = VariationalBound(steps=chosen.steps, kernel=Choice("kernel", "mixture"), grid=Choice("grid", "gamma"))
    nats = [vdmkit.log_likelihood(oracle, images, estimator=bound, key=jax.random.key(0)) for bound in (chosen, even)]
    assert nats[0].log_prob.mean() > nats[1].log_prob.mean()
