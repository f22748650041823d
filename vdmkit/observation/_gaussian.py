# SPDX-License-Identifier: Apache-2.0
"""The decoder of continuous data."""

import equinox as eqx
import jax.numpy as jnp

from vdmkit.errors import RecipeError
from vdmkit.observation._observation import AbstractObservation, Lazy
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar


@register("observation", "gaussian")
class GaussianObservation(AbstractObservation):
    """p(x | z_0) ~ q(z_0 | x) for continuous data, a density: N(x; z_0 / alpha_0, exp(gamma_0) I)."""

    levels: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.levels:
            raise RecipeError(f"the gaussian observation needs continuous data, but these have {self.levels} levels.")

    def log_prob(self, image: Image, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Scalar:
        distance = (self.encode(image) - z_0) * jnp.exp(-gamma_0 / 2)
        return -0.5 * (distance**2 + gamma_0 + jnp.log(2 * jnp.pi)).sum()

    def decode(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Image:
        return z_0
