# SPDX-License-Identifier: Apache-2.0
"""Names for the two types of array that occur everywhere; the others are written out where they stand."""

from jaxtyping import Array, Float

Image = Float[Array, "h w c"]  # pixels, latents, noise, and predictions of them, of one image
Scalar = Float[Array, ""]
