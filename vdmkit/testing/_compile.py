# SPDX-License-Identifier: Apache-2.0
"""Programs that run for a moment: it takes far longer to compile them well than to run them compiled badly."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

_OPTION = "jax_disable_most_optimizations"


@contextmanager
def compiled_fast() -> Iterator[None]:
    """What is compiled for the first time within compiles in half the time, and runs slower.

    It holds for all threads: of those that run at once, only the one that waits for the others may enter it.
    """
    before = jax.config.values[_OPTION]
    jax.config.update(_OPTION, True)
    try:
        yield
    finally:
        jax.config.update(_OPTION, before)
