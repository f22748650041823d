# SPDX-License-Identifier: Apache-2.0
r"""The reverse step p(z_s | z_t) in units of y = z / alpha = x + s eps, with s = sigma / alpha = exp(gamma / 2).

With c = 1 - SNR(t) / SNR(s), the true step given the data is, on every path (Kingma et al. 2021, App. A),

    q(y_s | y_t, x) = N( y_t + c (x - y_t), s_s^2 c ),   y_t + c (x - y_t) = y_t - s_t c eps
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser import Estimate
from vdmkit.registry import define_kind


class AbstractStep(eqx.Module):
    """p(y_s | y_t) of one image, whose values are independent of each other given y_t."""

    @abc.abstractmethod
    def sample(self, noise: Float[Array, "n h w c"]) -> Float[Array, "h w c"]:
        """y_s from standard normal draws, as many as the kernel's `noises`."""

    @abc.abstractmethod
    def log_prob(self, y_s: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """The log density of each value, nats."""

    @abc.abstractmethod
    def cdf(self, y_s: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """The probability that each value is at most this."""


class AbstractKernel(eqx.Module):
    """From the estimate at y_t to p(y_s | y_t). `noises`: how many normal draws of each value a sample takes."""

    noises: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(
        self, estimate: Estimate, y_t: Float[Array, "h w c"], gamma_t: Float[Array, ""], gamma_s: Float[Array, ""]
    ) -> AbstractStep:
        """The step to gamma_s < gamma_t; at gamma_s = -inf, where there is no noise left, y_s is an image.

        Raises:
            RecipeError: the estimate lacks what the kernel needs.
        """

    @abc.abstractmethod
    def kl(
        self,
        estimate: Estimate,
        x: Float[Array, "h w c"],
        eps: Float[Array, "h w c"],
        gamma_t: Float[Array, ""],
        gamma_s: Float[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "h w c"]:
        """KL(q(y_s | y_t, x) || p(y_s | y_t)) of each value at y_t = x + s_t eps, nats; or an unbiased draw of it.

        Raises:
            RecipeError: the estimate lacks what the kernel needs.
        """


define_kind("kernel", "p(z_s | z_t), the reverse step when steps are finite", AbstractKernel)


def part_of_noise(gamma_t: Float[Array, ""], gamma_s: Float[Array, ""]) -> Float[Array, ""]:
    """c: the share of the noise that a step takes away."""
    return -jnp.expm1(gamma_s - gamma_t)
