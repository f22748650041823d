# SPDX-License-Identifier: Apache-2.0
"""The path: how the latent z = alpha x + sigma eps is scaled at a given gamma = log(sigma^2 / alpha^2)."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from vdmkit.registry import define_kind, register
from vdmkit.typing import Scalar


class AbstractPath(eqx.Module):
    """alpha and sigma as functions of gamma. An implementer supplies alpha; sigma follows from SNR = exp(-gamma)."""

    @abc.abstractmethod
    def log_alpha(self, gamma: Scalar) -> Scalar:
        """Returns log alpha at gamma."""

    def alpha(self, gamma: Scalar) -> Scalar:
        """Returns alpha, the scale of the data in z."""
        return jnp.exp(self.log_alpha(gamma))

    def sigma(self, gamma: Scalar) -> Scalar:
        """Returns sigma = alpha exp(gamma / 2), the scale of the noise in z."""
        return jnp.exp(self.log_alpha(gamma) + gamma / 2)

    def scale(self, gamma: Scalar) -> Scalar:
        """Returns sqrt(alpha^2 + sigma^2); at gamma_1 the scale of the prior p(z_1) = N(0, scale^2 I)."""
        return jnp.hypot(self.alpha(gamma), self.sigma(gamma))


define_kind("path", "alpha and sigma of z = alpha x + sigma eps, at a given gamma", AbstractPath)


@register("path", "variance_preserving")
class VariancePreserving(AbstractPath):
    """alpha^2 + sigma^2 = 1 (Kingma et al. 2021, arXiv 2107.00630v6, section 3.1)."""

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return -jax.nn.softplus(gamma) / 2

    def scale(self, gamma: Scalar) -> Scalar:
        return jnp.ones_like(gamma)


@register("path", "variance_exploding")
class VarianceExploding(AbstractPath):
    """alpha = 1 (Song & Ermon 2019, arXiv 1907.05600; Karras et al. 2022, arXiv 2206.00364)."""

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return jnp.zeros_like(gamma)


@register("path", "sub_variance_preserving")
class SubVariancePreserving(AbstractPath):
    """sigma = 1 - alpha^2 (Song et al. 2021, arXiv 2011.13456, eq. 14).

    With r = sigma / alpha, alpha solves alpha^2 + r alpha - 1 = 0.
    """

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return -jnp.arcsinh(jnp.exp(gamma / 2) / 2)


@register("path", "straight_line")
class StraightLine(AbstractPath):
    """alpha + sigma = 1, as in flow matching (Lipman et al. 2023, arXiv 2210.02747)."""

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return -jax.nn.softplus(gamma / 2)
