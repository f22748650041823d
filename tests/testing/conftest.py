# SPDX-License-Identifier: Apache-2.0
"""Builds registered components as a recipe of small images does."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from vdmkit.registry import Choice, registry
from vdmkit.toy_data import GaussianMixture

SHAPE = (8, 8, 1)
CONTEXT = {
    "key": jax.random.key(0, impl="rbg"),
    "shape": SHAPE,
    "levels": 17,
    "level_counts": jnp.ones((*SHAPE, 17), jnp.int32),
    "distribution": GaussianMixture(SHAPE, (1.0,), ((0.0,) * 64,), ((0.5,) * 64,)),
    "classes": 10,
    "gamma_range": (-8.0, 5.0),
    "outputs": 1,
    "trained_steps": 0,
    "trained_kernel": Choice("kernel", "gaussian"),
    "trained_grid": Choice("grid", "uniform"),
    "steps": 100,
}


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    """`build(kind, name, {"outputs": 3}, **params)` builds a component, with changes to the injected `CONTEXT`."""

    def build(kind: str, name: str, supplied: dict[str, Any] | None = None, **params: Any) -> Any:
        return registry(kind).get(name).build(CONTEXT | (supplied or {}), **params)

    return build
