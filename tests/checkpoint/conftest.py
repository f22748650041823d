# SPDX-License-Identifier: Apache-2.0
"""A small state to keep, and a stream of batches beside it."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import pytest

from vdmkit.data.batches import batches
from vdmkit.training.checkpoints import CheckpointStore


def state_at(step: int) -> dict:
    """A state that differs at every step, with the types that a training state has."""
    return {"a": jnp.full((2, 3), step, jnp.float32), "n": jnp.asarray(step, jnp.int32), "name": "static", "none": None}


@pytest.fixture
def stream(tiny_images) -> Callable:
    """`stream(4)` has given 4 batches."""

    def stream(given: int = 0):
        data = batches(tiny_images, batch_size=4, seed=0)
        for _ in range(given):
            next(data)
        return data

    return stream


@pytest.fixture
def filled(tmp_path: Path, stream) -> Path:
    """A directory with checkpoints of steps 1, 2 and 3; after the command above, 3 batches were given at step 3."""
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=3, keep_best=0)
    data = stream()
    for step in (1, 2, 3):
        next(data)
        store.save(step, state_at(step), data, {"note": step})
    return tmp_path / "checkpoints"


@pytest.fixture
def like() -> dict:
    """The structure of the states in `filled`."""
    return state_at(0)
