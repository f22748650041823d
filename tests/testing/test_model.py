# SPDX-License-Identifier: Apache-2.0
"""The parts of a model, checked on its own latents."""

import equinox as eqx
import jax
import numpy as np
import pytest

from vdmkit.conformance.model import check_derivative_of_model, latents_of
from vdmkit.errors import ConformanceError
from vdmkit.networks import AbstractNetwork


class _Called(AbstractNetwork):
    """A network computed by a Python callback, which JAX cannot differentiate."""

    def __call__(self, z, gamma, condition, *, key=None):
        shape = jax.ShapeDtypeStruct(z.shape, z.dtype)
        return jax.pure_callback(np.tanh, shape, z, vmap_method="sequential")[..., None]


def test_a_network_that_cannot_be_differentiated(tiny_model, tiny_images):
    """A network that cannot be differentiated is refused, with the consequence for ODE likelihoods."""
    model = eqx.tree_at(lambda model: model.network, tiny_model, _Called())
    said = r"^it cannot be differentiated, so that likelihoods by an ODE are not possible \(Pure callbacks do .*\)\.$"
    with pytest.raises(ConformanceError, match=said):
        check_derivative_of_model(model, latents_of(model, tiny_images.pixels))
