# SPDX-License-Identifier: Apache-2.0
"""What both networks do with their last convolution."""

from jaxtyping import Array, Float


def values_per_pixel(h: Float[Array, "h w ck"], z: Float[Array, "h w c"]) -> Float[Array, "h w c k"]:
    """Split the channels of the last layer into c times k. A single value per pixel starts from z itself.

    With a zero last layer the untrained network so predicts eps_hat = z, its best guess at high noise
    (Kingma et al. 2021, authors' code). Several values have no such base; their prediction supplies one.
    """
    values = h.reshape(*z.shape, -1)
    return values + z[..., None] if values.shape[-1] == 1 else values
