# SPDX-License-Identifier: Apache-2.0
"""The transformer is a network like any other."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_dit import Dit, DitError

from vdmkit.conformance import check_network
from vdmkit.recipes import load_recipe

SMALL = {"width": 16, "blocks": 2, "heads": 2}
ENDS = (-8.0, 5.0)


@pytest.mark.costly
@pytest.mark.parametrize("patch", [1, 2])
def test_conforms(patch):
    """No recipe could use it."""
    key = jax.random.key(0)
    check_network(lambda outputs: Dit((4, 4, 3), outputs, ENDS, key, **SMALL, patch=patch), (4, 4, 3))


@pytest.mark.costly
def test_untrained_it_gives_the_latent_or_nothing():
    """Training would not start where the paper's does: eps_hat = z, or logits of 0."""
    z = jax.random.normal(jax.random.key(1), (4, 4, 1))
    one, three = (Dit((4, 4, 1), k, ENDS, jax.random.key(0), **SMALL) for k in (1, 3))
    np.testing.assert_array_equal(one(z, jnp.asarray(0.0), {})[..., 0], z)
    np.testing.assert_array_equal(three(z, jnp.asarray(0.0), {}), jnp.zeros((4, 4, 1, 3)))


@pytest.mark.costly
def test_patches_are_put_back_where_they_were():
    """A patch's output would be drawn at another place: here nothing is passed from token to token."""
    network = Dit((4, 6, 1), 3, ENDS, jax.random.key(0), **SMALL, patch=2)
    network = eqx.tree_at(lambda n: n.blocks, network, [])
    arrays, rest = eqx.partition(network, eqx.is_inexact_array)
    noisy = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(2), leaf.shape), arrays)
    alone = eqx.combine(noisy, rest)
    z = jnp.zeros((4, 6, 1))
    changed = alone(z.at[3, 2, 0].set(1.0), jnp.asarray(0.0), {}) != alone(z, jnp.asarray(0.0), {})
    assert changed[2:4, 2:4].all()
    assert changed.sum() == 4 * 3


def test_sizes_that_do_not_fit_are_refused():
    """A user would meet an error of reshape."""
    with pytest.raises(DitError, match="5x4 pixels in patches of 2"):
        Dit((5, 4, 1), 1, ENDS, jax.random.key(0), **SMALL)


def test_the_recipe_uses_it():
    """The recipe beside the plugin would train another network."""
    recipe = load_recipe(Path(__file__).parents[1] / "digits_dit.toml")
    assert recipe.model.network.name == "dit"
