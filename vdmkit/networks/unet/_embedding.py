# SPDX-License-Identifier: Apache-2.0
"""Embeddings of the noise level, and of the labels beside it, into the vector that every block is given."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, PRNGKeyArray

from vdmkit.networks._layers import Dense
from vdmkit.schedules import Scalar

FOURIER_SCALE = 16.0
"""Standard deviation of the frequencies of NCSN++."""


class PositionalFeatures(eqx.Module):
    """Sines and cosines of the label at geometric frequencies 10000^(-i / (n - shift)), i < n (arXiv 1706.03762).

    DDPM has sines first and shift 1, so that the last frequency is 1/10000; ADM has cosines first and shift 0.
    """

    size: int = eqx.field(static=True)
    cosines_first: bool = eqx.field(static=True)
    shift: int = eqx.field(static=True)

    def __call__(self, label: Scalar) -> Float[Array, " size"]:
        half = self.size // 2
        frequencies = 10_000.0 ** (-np.arange(half) / max(half - self.shift, 1))
        angles = label * frequencies.astype(label.dtype)
        sines, cosines = jnp.sin(angles), jnp.cos(angles)
        return jnp.concatenate([cosines, sines] if self.cosines_first else [sines, cosines])


class FourierFeatures(eqx.Module):
    """Sines, then cosines of 2 pi w label with fixed random frequencies w ~ N(0, 16^2) (arXiv 2006.10739).

    `bits` are those of w in float32: an integer is neither trained nor averaged nor rounded to bfloat16.
    """

    bits: Int32[Array, " n"]

    def __init__(self, size: int, key: PRNGKeyArray):
        frequencies = FOURIER_SCALE * jax.random.normal(key, (size // 2,), jnp.float32)
        self.bits = jax.lax.bitcast_convert_type(frequencies, jnp.int32)

    def __call__(self, label: Scalar) -> Float[Array, " size"]:
        frequencies = jax.lax.bitcast_convert_type(self.bits, jnp.float32).astype(label.dtype)
        angles = 2 * np.pi * frequencies * label
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


class Embedding(eqx.Module):
    """Two dense layers on the features of the noise level, with a swish after each.

    What is known of the image is added: its class, a vector that is one-hot (or zero, for unknown), to the features or
    to the second layer, and EDM's parameters of augmentation to the features.
    """

    features: PositionalFeatures | FourierFeatures
    dense0: Dense
    dense1: Dense
    label: Dense | None
    augment: Dense | None
    label_at: str = eqx.field(static=True)

    def __init__(
        self,
        features: PositionalFeatures | FourierFeatures,
        size: int,
        width: int,
        key: PRNGKeyArray,
        *,
        labels: int,
        label_at: Literal["features", "output"],
        augment: int,
    ):
        keys = jax.random.split(key, 4)
        self.features = features
        self.dense0, self.dense1 = Dense(size, width, keys[0]), Dense(width, width, keys[1])
        at_features = label_at == "features"
        self.label = Dense(labels, size if at_features else width, keys[2], use_bias=at_features) if labels else None
        self.augment = Dense(augment, size, keys[3], use_bias=False) if augment else None
        self.label_at = label_at

    @property
    def labels(self) -> int:
        """Returns the number of classes, 0 for a network that is not told them."""
        return 0 if self.label is None else self.label.kernel.shape[0]

    def __call__(
        self, label: Scalar, classes: Float[Array, " k"] | None, augment: Float[Array, " a"] | None
    ) -> Float[Array, " width"]:
        h = self.features(label)
        known = jnp.zeros(self.labels, h.dtype) if classes is None else classes.astype(h.dtype)
        if self.label is not None and self.label_at == "features":
            h = h + self.label(known * self.labels**0.5)  # of variance 1 in every entry
        if self.augment is not None and augment is not None:
            h = h + self.augment(augment)
        h = self.dense1(jax.nn.silu(self.dense0(h)))
        if self.label is not None and self.label_at == "output":
            h = h + self.label(known)
        return jax.nn.silu(h)
