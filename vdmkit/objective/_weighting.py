# SPDX-License-Identifier: Apache-2.0
"""Weights w(gamma) of the diffusion loss. Only w = 1 is the likelihood bound."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.registry import define_kind, register


class AbstractWeighting(eqx.Module):
    """An implementer supplies w(gamma) >= 0."""

    @abc.abstractmethod
    def __call__(self, gamma: Float[Array, ""]) -> Float[Array, ""]:
        """The weight at gamma."""


define_kind("weighting", "w(gamma) in the loss; elbo (w = 1) is the likelihood bound", AbstractWeighting)


@register("weighting", "elbo")
class Elbo(AbstractWeighting):
    """w = 1: the variational bound on the likelihood."""

    def __call__(self, gamma: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.ones_like(gamma)
