# SPDX-License-Identifier: Apache-2.0
"""Codecs of models that cost little: 4x4 images of 5 levels, one dense layer, or none and the exact posterior."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from vdmkit_codec.codec import Codec
from vdmkit_codec.coding import layers_of
from vdmkit_codec.payload import Limits, payload_of

from vdmkit.decoders import CategoricalObservation
from vdmkit.likelihood import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork, NoNetwork
from vdmkit.predictions import Categorical
from vdmkit.process import VariancePreserving
from vdmkit.registry import Choice
from vdmkit.schedules import FixedLinear
from vdmkit.toy_data import Exact, LevelMixture

SHAPE, LEVELS, PIXELS = (4, 4, 1), 5, 16
LIMITS = Limits(65535, 65535, PIXELS)
MIXTURE, IN_GAMMA = Choice("kernel", "mixture"), Choice("grid", "gamma")


class Dense(AbstractNetwork):
    """One layer on the whole image and gamma."""

    kernel: Array
    bias: Array

    def __call__(self, z, gamma, condition, *, key=None):
        return jnp.tanh(jnp.append(z, gamma) @ self.kernel + self.bias).reshape(*z.shape, -1)


@pytest.fixture(scope="session")
def data() -> LevelMixture:
    """Two kinds of images."""
    means = np.random.default_rng(0).uniform(-0.7, 0.7, (2, PIXELS))
    rows = tuple(tuple(row) for row in means.tolist())
    return LevelMixture(SHAPE, LEVELS, (0.6, 0.4), rows, ((0.15,) * PIXELS, (0.1,) * PIXELS))


@pytest.fixture(scope="session")
def images(data) -> np.ndarray:
    """37 of them, which is prime."""
    return data.sample(37, 1)


@pytest.fixture(scope="session")
def model_of() -> Callable[..., DiffusionModel]:
    """A model of these images from parts; what is left out is the cheapest."""

    def build(prediction, network=None, schedule=None, path=None, observation=None) -> DiffusionModel:
        return DiffusionModel(
            schedule=schedule or FixedLinear(gamma_min=-6.0, gamma_max=5.0),
            path=path or VariancePreserving(),
            prediction=prediction,
            network=network or NoNetwork(outputs=prediction.outputs),
            observation=observation or CategoricalObservation(LEVELS),
            shape=SHAPE,
        )

    return build


@pytest.fixture(scope="session")
def oracle(model_of, data) -> DiffusionModel:
    """The exact posterior: no parameters."""
    return model_of(Exact(data))


@pytest.fixture(scope="session")
def dense() -> Callable[[int], AbstractNetwork]:
    """A network of so many outputs with float32 parameters of a seed."""

    def build(outputs: int) -> AbstractNetwork:
        rng = np.random.default_rng(2)
        kernel, bias = rng.normal(size=(PIXELS + 1, PIXELS * outputs)) / 40, rng.normal(size=PIXELS * outputs) / 4
        return Dense(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))

    return build


@pytest.fixture(scope="session")
def learned(model_of, dense, data) -> DiffusionModel:
    """A categorical prediction of a network, and the histogram of 200 images."""
    counts = (data.sample(200, 5)[..., None] == np.arange(LEVELS)).sum(0)
    return model_of(Categorical(jnp.asarray(counts)), dense(LEVELS))


@pytest.fixture(scope="session")
def make_codec() -> Callable[..., Codec]:
    """The codec of a bound of T steps."""

    def make(model, steps=4, kernel=MIXTURE, grid=IN_GAMMA, profile="portable", group=8, seed=3) -> Codec:
        bound = VariationalBound(steps=steps, kernel=kernel, grid=grid)
        return Codec(model, layers_of(model, bound), profile, group, seed)

    return make


@pytest.fixture(scope="session")
def round_trip() -> Callable[..., tuple]:
    """Encode, write out, read, decode in batches of a size: the payload and the net bits of images that came back."""

    def there_and_back(codec: Codec, images: np.ndarray, batch: int | None = None) -> tuple:
        payload, bits = codec.chunk_code().encode(images)
        read = payload_of(payload.to_bytes(), len(images), LIMITS)
        np.testing.assert_array_equal(codec.chunk_code(batch).decode(read), images)
        return payload, bits

    return there_and_back
