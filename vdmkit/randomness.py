# SPDX-License-Identifier: Apache-2.0
"""Keys by purpose: one seed, and a stream for every use of it that no other use can touch."""

import zlib

import jax
from jaxtyping import PRNGKeyArray


def fold_purpose(key: PRNGKeyArray, purpose: str) -> PRNGKeyArray:
    """The stream of `purpose` ("init", "train", "evaluate", "sample", ...) under `key`."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))
