# SPDX-License-Identifier: Apache-2.0
"""Random keys by purpose: a single seed gives independent random streams for initialization, training, sampling, ..."""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from vdmkit.errors import RecipeError


def fold_purpose(key: PRNGKeyArray, purpose: str) -> PRNGKeyArray:
    """Returns the random key of `purpose` ("init", "train", "evaluate", "sample", ...) under `key`.

    Raises:
        RecipeError: `key` is not a single random key, but for example a number or an array of keys.
    """
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise RecipeError(f"key: expected a random key, such as jax.random.key(0), found {type(key).__name__}.")
    if key.ndim:
        raise RecipeError(f"key: expected one random key, found an array of keys of shape {key.shape}.")
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


def fold_replicate(
    key: PRNGKeyArray, purpose: str, index: Int[Array, ""], replicate: Int[Array, ""] | int
) -> PRNGKeyArray:
    """Returns the random key of one replicate estimate for the image with this index, independent of its batch."""
    return jax.random.fold_in(jax.random.fold_in(fold_purpose(key, purpose), index), replicate)
