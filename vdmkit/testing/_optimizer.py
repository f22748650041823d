# SPDX-License-Identifier: Apache-2.0
"""Checks of optimisers, on a quadratic bowl."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vdmkit.testing._expect import expect

_STEPS = 20


def check_optimizer(optimizer: optax.GradientTransformation) -> None:
    """Checks that the optimiser descends a quadratic bowl from its rim, and that its state keeps its shapes.

    Updates that are not finite are refused by training, with their step, and not here.

    Raises:
        ConformanceError: the parameters climb, or an update or the state changes its structure.
    """
    params = {"kernel": jnp.linspace(1.0, 2.0, 4), "bias": jnp.ones(2)}
    state, before = optimizer.init(params), jax.tree.map(np.asarray, params)
    shapes, update = jax.tree.map(jnp.shape, state), jax.jit(optimizer.update)
    for _ in range(_STEPS):
        grads = jax.tree.map(lambda p: p, params)  # of |p|^2 / 2
        updates, state = update(grads, state, params)
        expect(
            jax.tree.structure(updates) == jax.tree.structure(params),
            "its updates do not have the structure of the parameters",
        )
        params = optax.apply_updates(params, updates)
    expect(jax.tree.map(jnp.shape, state) == shapes, "its state changes its shapes from step to step")
    moves = zip(*map(jax.tree.leaves, (before, params)), strict=True)
    rise = sum(float((start * (np.asarray(end) - start)).sum()) for start, end in moves)
    expect(not rise > 0, f"it climbs: in {_STEPS} steps parameters move by {rise:.3g} along the gradient of a bowl")
