# SPDX-License-Identifier: Apache-2.0
"""Keys by purpose: one seed gives an independent random stream to each of its uses."""

import zlib

import jax
from jaxtyping import PRNGKeyArray


def fold_purpose(key: PRNGKeyArray, purpose: str) -> PRNGKeyArray:
    """Returns the random key of `purpose` ("init", "train", "evaluate", "sample", ...) under `key`."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))
