# SPDX-License-Identifier: Apache-2.0
"""Fourier features of the latent, which show a network details as fine as one level of 256."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FREQUENCIES = (64, 128)
"""In cycles per unit of z. On clean data the first tells odd from even levels."""


def with_fourier_features(z: Float[Array, "h w c"]) -> Float[Array, "h w 5*c"]:
    """z, then the sine and then the cosine of 2 pi f z for every channel and, within it, every f.

    Kingma et al. 2021, arXiv 2107.00630v6, appendix C. The arguments reach 2 pi 128 |z|, so they are
    computed in float32 at least: lower precision loses the phase.
    """
    angular = np.array(FREQUENCIES) * 2 * np.pi
    wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    angles = (wide[..., None] * angular.astype(wide.dtype)).reshape(*z.shape[:-1], -1)
    return jnp.concatenate([z, jnp.sin(angles), jnp.cos(angles)], axis=-1)
