# SPDX-License-Identifier: Apache-2.0
"""The bounds of a model before and after a conversion are compared on the same images and draws."""

import equinox as eqx
import jax
import pytest

from vdmkit.errors import UntrustedError
from vdmkit.experiments.conversion import check_same_bound


@pytest.mark.costly
def test_another_model_is_refused(tiny_model, tiny_images):
    """A conversion that changes the model would be written, or one that does not would be refused."""
    how = {"steps": 4, "key": jax.random.key(0)}
    same = check_same_bound(tiny_model, tiny_model, tiny_images.pixels, **how)
    assert same.before == same.after
    assert str(same).endswith("(the same 12 test images and draws; difference +0.0e+00)")
    other = eqx.tree_at(lambda model: model.network.bias, tiny_model, replace_fn=lambda bias: bias + 0.5)
    with pytest.raises(UntrustedError, match=r"the bound was .* bits/dim: not the same model"):
        check_same_bound(tiny_model, other, tiny_images.pixels, **how)
