# SPDX-License-Identifier: Apache-2.0
"""Chunks: whatever the images, the model and its steps, they come back; foreign ones cost their raw bits."""

import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_codec.chain import ChunkCode
from vdmkit_codec.payload import Limits, payload_of

from vdmkit.decoders import DiscretisedGaussian
from vdmkit.predictions import Categorical, Eps
from vdmkit.registry import Choice, registry
from vdmkit.schedules import FlowMatching, LearnedLinear

GAUSSIAN = Choice("kernel", "gaussian", {"variance": "small"})
LARGE = Choice("kernel", "gaussian", {"variance": "large"})
MEASURED = Choice("kernel", "optimal_variance", {"gammas": (-6.0, 0.0, 5.0), "errors": (0.9, 0.5, 0.2)})
GIVEN = Choice("grid", "gammas", {"gammas": tuple(np.append(np.linspace(-6, 4, 16), 5.0).tolist())})
UNIFORM = Choice("grid", "uniform")
IN_CI = [pytest.param(one, marks=pytest.mark.system) for one in (LARGE, MEASURED, UNIFORM, GIVEN)]  # each compiles anew
FOREIGN = {
    "noise": np.random.default_rng(0).integers(0, 5, (19, 4, 4, 1)),
    "black": np.zeros((7, 4, 4, 1)),
    "white": np.full((7, 4, 4, 1), 4),
    "checkerboard": np.broadcast_to(4 * (np.indices((4, 4)).sum(0) % 2)[..., None], (7, 4, 4, 1)),
    "beyond": np.random.default_rng(1).integers(0, 256, (5, 4, 4, 1)),
    "one beyond": np.where(np.arange(9)[:, None, None, None] == 4, 255, 2) + np.zeros((9, 4, 4, 1)),
}


@pytest.mark.costly
@pytest.mark.parametrize("kernel", [Choice("kernel", "mixture"), GAUSSIAN, *IN_CI[:2]], ids=str)
@pytest.mark.parametrize("grid", [Choice("grid", "gamma"), *IN_CI[2:]], ids=str)
def test_kernels_and_grids(make_codec, learned, images, round_trip, kernel, grid) -> None:
    """Images come back with every kernel and grid."""
    more = np.concatenate([images, images[::-1]])  # 37 take less room stored, for the first bits
    payload, _ = round_trip(make_codec(learned, 16, kernel, grid), more, batch=5)
    assert (payload.stored > 0).mean() < 0.7, "it is the model that is tested"


@pytest.mark.parametrize("steps", [1, 2, 10, pytest.param(250, marks=pytest.mark.costly)])
@pytest.mark.parametrize("kernel", [Choice("kernel", "mixture"), GAUSSIAN], ids=str)
def test_steps(make_codec, learned, images, round_trip, steps, kernel) -> None:
    """Images come back with one step and with many."""
    round_trip(make_codec(learned, steps, kernel), images[: 11 if steps < 250 else 2])


@pytest.mark.parametrize("count", [0, 1, 2, 37])
def test_counts(make_codec, learned, images, round_trip, count) -> None:
    """No image, one image and a prime number of images come back in order."""
    payload, bits = round_trip(make_codec(learned), images[:count])
    assert sum(payload.groups) == count
    assert max(payload.groups, default=0) <= 8
    if not count:
        assert bits == 0
        assert payload.groups == ()


@pytest.mark.costly
def test_small_files_come_back(make_codec, oracle, images, monkeypatch) -> None:
    """A payload decodes whose heads hold some of its initial words, as that of one image in twelve does."""
    # As version 1 wrote them: with all lanes, and no chunk stored as a whole.
    monkeypatch.setattr(ChunkCode, "lanes_for", lambda self, values: self.lanes)
    more = 0
    for seed in range(40):
        code = make_codec(oracle, 2, seed=seed).chunk_code(8)
        payload, _ = code._encode(images[seed % 37 :][:1], np.zeros(1, bool), lambda count: None)
        if payload.seeded > len(payload.words):
            more += 1
            np.testing.assert_array_equal(
                code.decode(payload_of(payload.to_bytes(), 1, Limits(1, 1, 16))), images[seed % 37 :][:1]
            )
    assert more > 0


@pytest.mark.costly
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_images(make_codec, learned, images, round_trip, name) -> None:
    """Images unlike the training data come back, and take at most their raw size and one bit each."""
    foreign = FOREIGN[name].astype(np.uint8)
    levels = 5 if foreign.max() < 5 else 256
    payload, bits = round_trip(make_codec(learned), foreign)
    assert bits <= len(foreign) * (16 * np.log2(levels) + 1)
    mixed = np.concatenate([images[:9], foreign, images[9:]])
    payload, mixed_bits = round_trip(make_codec(learned), mixed)
    # Another draw of latents each time: 16 values of 46 images, of less than a bit's standard deviation, four times.
    assert mixed_bits <= round_trip(make_codec(learned), images)[1] + 46 * 16 * np.log2(levels) + 4 * 27
    if levels == 256:
        assert payload.stored[9:][: len(foreign)][foreign.reshape(len(foreign), -1).max(1) > 4].all()


def test_stored_images_cost_raw(make_codec, learned, round_trip) -> None:
    """A stored image takes log2 V bits for each value, up to the rounding of the heads."""
    beyond = FOREIGN["beyond"].astype(np.uint8)
    payload, bits = round_trip(make_codec(learned), beyond)
    assert payload.stored.all()
    assert abs(bits / (8 * beyond.size) - 1) < 1e-3  # of which 40 values in 64 lanes round their heads


@pytest.mark.costly
@pytest.mark.parametrize("path", sorted(registry("path").components))
def test_paths(make_codec, model_of, dense, images, round_trip, path) -> None:
    """The latents of every path are those that the network is evaluated on."""
    model = model_of(Eps(), dense(1), path=registry("path").get(path).build({}))
    round_trip(make_codec(model, kernel=GAUSSIAN), images)


@pytest.mark.costly
@pytest.mark.parametrize(
    "schedule",
    [FlowMatching(gamma_min=-6.0, gamma_max=5.0), LearnedLinear(gamma_min=-6.0)],
    ids=lambda one: type(one).__name__,
)
def test_schedules(make_codec, model_of, dense, images, round_trip, schedule) -> None:
    """Images come back with other schedules and with learned ends."""
    model = model_of(Eps(), dense(1), schedule=schedule)
    round_trip(make_codec(model, kernel=GAUSSIAN, grid=Choice("grid", "uniform")), images)


def test_observations(make_codec, model_of, dense, images, round_trip) -> None:
    """Decoders that evaluate the network, and levels that end at -1 and 1, can be coded."""
    model = model_of(Eps(), dense(1), observation=DiscretisedGaussian(5, sd=0.2))
    codec = make_codec(model, kernel=GAUSSIAN)
    assert codec.layers.x[-1] == pytest.approx(1), "the levels are those of this observation"
    round_trip(codec, images)
    np.testing.assert_allclose(codec.layers.x, jnp.asarray(model.observation.encode(jnp.arange(5)[None, None])).ravel())


def test_untrained(make_codec, model_of, images, round_trip) -> None:
    """An untrained model takes at most the raw size and one bit for each image."""
    model = model_of(Categorical(jnp.zeros((4, 4, 1, 5), int)))
    _, bits = round_trip(make_codec(model), images)
    assert bits <= images.shape[0] * (16 * np.log2(5) + 1)


@pytest.mark.costly
def test_first_bits_are_those_of_one_image(make_codec, learned, data) -> None:
    """The number of initial bits of a chunk does not grow with its number of images."""
    codec, images = make_codec(learned, 10, group=64), data.sample(200, 2)
    code = codec.chunk_code(64)
    few, all_ = (code.encode(images[:count])[0] for count in (40, 200))  # fewer are stored
    assert len(all_.groups) > 5
    assert max(all_.groups) > 30
    # One image owes `layers.bits` of each value; each lane may take one word more, and again as groups grow.
    # 64 images at once would owe 64 times as much, 240 words.
    most = codec.layers.bits * 16 / 32 + 2 * len(all_.heads)
    assert not few.stored.all()
    assert 0 < few.seeded <= all_.seeded <= most


def test_host(make_codec, learned, images, round_trip) -> None:
    """Profile host decodes in the batch size of encoding."""
    round_trip(make_codec(learned, profile="host"), images)
