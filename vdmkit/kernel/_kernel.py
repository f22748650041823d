# SPDX-License-Identifier: Apache-2.0
r"""The reverse step p(z_s | z_t) in units of y = z / alpha = x + s eps, with s = sigma / alpha = exp(gamma / 2).

With c = 1 - SNR(t) / SNR(s), the true step given the data is, on every path (Kingma et al. 2021, App. A),

    q(y_s | y_t, x) = N( y_t + c (x - y_t), s_s^2 c ),   y_t + c (x - y_t) = y_t - s_t c eps
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser import Estimate
from vdmkit.registry import define_kind


class AbstractStep(eqx.Module):
    """p(y_s | y_t) of one image, whose values are independent of each other given y_t."""

    @abc.abstractmethod
    def sample(self, noise: Float[Array, "n h w c"]) -> Float[Array, "h w c"]:
        """y_s from standard normal draws, as many as the kernel's `noise_draws`."""

    @abc.abstractmethod
    def log_prob(self, y_s: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """The log density of each value, nats."""

    @abc.abstractmethod
    def cdf(self, y_s: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """The probability that each value is at most this."""


class AbstractKernel(eqx.Module):
    """From the estimate at y_t to p(y_s | y_t). `noise_draws`: how many normal draws of each value a sample takes."""

    noise_draws: eqx.AbstractVar[int]

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

    def log_ratio(
        self,
        estimate: Estimate,
        x: Float[Array, "h w c"],
        eps: Float[Array, "h w c"],
        n: Float[Array, "h w c"],
        gamma_t: Float[Array, ""],
        gamma_s: Float[Array, ""],
    ) -> Float[Array, "h w c"]:
        """log p(y_s | y_t) - log q(y_s | y_t, x) of each value, nats, where y_t = x + s_t eps and n draws y_s from q.

        The mean of its negative over n ~ N(0, I) is the KL. This is by the density of the step, which rounding of y_s
        moves by eps |y_s| / (s_s sqrt(c)), 3e-4 at gamma_s = -13 and T = 1000 in float32. vdmkit's own kernels write
        it without y_s, where nothing cancels.

        Raises:
            RecipeError: the estimate lacks what the kernel needs.
        """
        c, s_s = part_of_noise(gamma_t, gamma_s), jnp.exp(gamma_s / 2)
        sd, y_t = s_s * jnp.sqrt(c), x + jnp.exp(gamma_t / 2) * eps
        y_s = x + s_s * jnp.exp((gamma_s - gamma_t) / 2) * eps + sd * n  # y_t + c (x - y_t) is the mean of q
        step = self(estimate, y_t, gamma_t, gamma_s)
        return step.log_prob(y_s) - (jax.scipy.stats.norm.logpdf(n) - jnp.log(sd))


define_kind("kernel", "p(z_s | z_t), the reverse step when steps are finite", AbstractKernel)


def part_of_noise(gamma_t: Float[Array, ""], gamma_s: Float[Array, ""]) -> Float[Array, ""]:
    """c: the share of the noise that a step takes away."""
    return -jnp.expm1(gamma_s - gamma_t)
