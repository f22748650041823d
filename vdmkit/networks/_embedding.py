# SPDX-License-Identifier: Apache-2.0
"""Sinusoidal embeddings of gamma, the conditioning of every block, and Fourier features of the latent."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks._layers import Dense
from vdmkit.networks._network import Condition
from vdmkit.process import Image
from vdmkit.schedules import Scalar

FREQUENCIES = (64, 128)
"""Frequencies in cycles per unit of z. On clean data the first distinguishes odd from even levels."""


class Conditioning(eqx.Module):
    """Two dense layers on a sinusoidal embedding of gamma and on the flag `condition["augmented"]` (default 0).

    gamma is rescaled by the constant ends of the recipe, so that the network stays a function of gamma
    when a learned schedule moves its own ends.
    """

    dense0: Dense
    dense1: Dense
    gamma_range: tuple[float, float] = eqx.field(static=True)

    def __init__(self, embedding: int, width: int, gamma_range: tuple[float, float], key: PRNGKeyArray):
        key0, key1 = jax.random.split(key)
        self.dense0 = Dense(embedding + 1, width, key0)
        self.dense1 = Dense(width, width, key1)
        self.gamma_range = gamma_range

    def __call__(self, gamma: Scalar, condition: Condition) -> Float[Array, " width"]:
        low, high = self.gamma_range
        augmented = jnp.asarray(condition.get("augmented", 0.0), gamma.dtype)
        embedding = sinusoid((gamma - low) / (high - low), self.dense0.kernel.shape[0] - 1)
        hidden = jax.nn.silu(self.dense0(jnp.append(embedding, augmented)))
        return jax.nn.silu(self.dense1(hidden))


def sinusoid(tau: Scalar, size: int) -> Float[Array, " size"]:
    """Returns sines, then cosines, of 1000 tau at size / 2 geometric frequencies from 1 down to 1/10000."""
    frequencies = np.geomspace(1, 1e-4, size // 2)
    angles = 1000 * tau * frequencies.astype(tau.dtype)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def with_fourier_features(z: Image) -> Float[Array, "h w 5*c"]:
    """Returns z, then the sine and then the cosine of 2 pi f z for every channel and, within it, every f.

    They show a network details as fine as one level of 256 (Kingma et al. 2021, arXiv 2107.00630v6, appendix
    C). The arguments reach 2 pi 128 |z|, so they are computed in float32 at least: lower precision loses the phase.
    """
    angular = np.array(FREQUENCIES) * 2 * np.pi
    wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    angles = (wide[..., None] * angular.astype(wide.dtype)).reshape(*z.shape[:-1], -1)
    return jnp.concatenate([z, jnp.sin(angles), jnp.cos(angles)], axis=-1)
