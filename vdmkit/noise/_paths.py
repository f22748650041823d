# SPDX-License-Identifier: Apache-2.0
"""The paths of the literature besides the variance preserving one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.noise._path import AbstractPath
from vdmkit.registry import register


@register("path", "variance_exploding")
class VarianceExploding(AbstractPath):
    """alpha = 1 (Song & Ermon 2019, arXiv 1907.05600; Karras et al. 2022, arXiv 2206.00364)."""

    def log_alpha(self, gamma: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.zeros_like(gamma)


@register("path", "sub_variance_preserving")
class SubVariancePreserving(AbstractPath):
    """sigma = 1 - alpha^2 (Song et al. 2021, arXiv 2011.13456, eq. 14).

    With r = sigma / alpha it is alpha^2 + r alpha - 1 = 0.
    """

    def log_alpha(self, gamma: Float[Array, ""]) -> Float[Array, ""]:
        return -jnp.arcsinh(jnp.exp(gamma / 2) / 2)


@register("path", "straight_line")
class StraightLine(AbstractPath):
    """alpha + sigma = 1, as in flow matching (Lipman et al. 2023, arXiv 2210.02747)."""

    def log_alpha(self, gamma: Float[Array, ""]) -> Float[Array, ""]:
        return -jax.nn.softplus(gamma / 2)
