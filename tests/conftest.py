# SPDX-License-Identifier: Apache-2.0
"""A model that compiles in a second, for whatever needs one without caring which."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import vdmkit
from vdmkit.data import Images, identified
from vdmkit.denoiser import Eps
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork
from vdmkit.noise import LearnedLinear, VariancePreserving
from vdmkit.observation import CategoricalObservation
from vdmkit.registry import load_plugins

# Here, before any module is collected: what is parametrised over a registry has the plugins whichever files are run.
load_plugins()

SHAPE, LEVELS = (4, 4, 1), 5


class _Tiny(AbstractNetwork):
    """One dense layer on the whole image, gamma and the flag; its input is dropped at random in training."""

    kernel: Array
    bias: Array

    def __call__(self, z, gamma, condition, *, key=None):
        inputs = jnp.append(z, gamma + condition.get("augmented", 0.0))
        kept = 1.0 if key is None else jax.random.bernoulli(key, 0.9, inputs.shape)
        return (jnp.tanh(kept * inputs @ self.kernel) + self.bias).reshape(*z.shape, 1)


@pytest.fixture(scope="session")
def tiny_model() -> DiffusionModel:
    """Learned linear schedule, eps prediction, 4x4 images of 5 levels; no parameter is zero."""
    rng = np.random.default_rng(0)
    pixels = int(np.prod(SHAPE))
    kernel, bias = rng.normal(size=(pixels + 1, pixels)), rng.normal(size=pixels)
    network = _Tiny(jnp.asarray(kernel / 8, jnp.float32), jnp.asarray(bias, jnp.float32))
    schedule = LearnedLinear(gamma_min=-6.0, gamma_max=5.0)
    return DiffusionModel(
        schedule=schedule,
        path=VariancePreserving(),
        prediction=Eps(),
        network=network,
        observation=CategoricalObservation(LEVELS),
        shape=SHAPE,
    )


@pytest.fixture(scope="session")
def tiny_images() -> Images:
    """Twelve images that fit the tiny model."""
    pixels = np.random.default_rng(1).integers(0, LEVELS, (12, *SHAPE)).astype(np.uint8)
    return identified(pixels, LEVELS, name="tiny", split="test")


@pytest.fixture(scope="session")
def digits_toml() -> Path:
    """The default recipe: categorical prediction, small U-Net, gamma from -8 to 5, 8x8 images of 17 levels."""
    return Path(vdmkit.__file__).parents[1] / "recipes" / "digits.toml"


@pytest.fixture(scope="session")
def as_float64():
    """A function: the same pytree with its float32 arrays in float64 (inside `jax.enable_x64`)."""
    return lambda tree: jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree
    )
