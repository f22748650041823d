# SPDX-License-Identifier: Apache-2.0
r"""The reverse step p(z_s | z_t) in units of y = z / alpha = x + s eps, with s = sigma / alpha = exp(gamma / 2).

With c = 1 - SNR(t) / SNR(s), the true step given the data is, on every path (Kingma et al. 2021, App. A),

    q(y_s | y_t, x) = N( y_t + c (x - y_t), s_s^2 c ),   y_t + c (x - y_t) = y_t - s_t c eps
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser import Estimate
from vdmkit.registry import define_kind
from vdmkit.typing import Image, Scalar


class AbstractStep(eqx.Module):
    """The distribution p(y_s | y_t) of one image, with independent values given y_t."""

    @abc.abstractmethod
    def sample(self, noise: Float[Array, "n h w c"]) -> Image:
        """Returns y_s from n standard normal draws per value, where n is the kernel's `noise_draws`."""

    @abc.abstractmethod
    def log_prob(self, y_s: Image) -> Image:
        """Returns the log density of each value in nats."""

    @abc.abstractmethod
    def cdf(self, y_s: Image) -> Image:
        """Returns the cumulative distribution function of each value."""


class AbstractKernel(eqx.Module):
    """A reverse kernel, which gives p(y_s | y_t) from the estimate at y_t.

    An implementer sets `noise_draws`, the number of normal draws that a sample takes for each value. A kernel that
    takes its variances from the network says so by `reads_variances = True`: then it is the default for any number of
    steps of a model that was trained with it.
    """

    reads_variances: ClassVar[bool] = False
    noise_draws: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, estimate: Estimate, y_t: Image, gamma_t: Scalar, gamma_s: Scalar) -> AbstractStep:
        """Returns the step to gamma_s < gamma_t; at gamma_s = -inf, without noise, y_s is an image.

        Raises:
            RecipeError: the estimate lacks what the kernel needs.
        """

    @abc.abstractmethod
    def kl(
        self,
        estimate: Estimate,
        x: Image,
        eps: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        *,
        key: PRNGKeyArray,
    ) -> Image:
        """Returns KL(q(y_s | y_t, x) || p(y_s | y_t)) of each value at y_t = x + s_t eps in nats, or an unbiased draw.

        Raises:
            RecipeError: the estimate lacks what the kernel needs.
        """

    def log_ratio(
        self,
        estimate: Estimate,
        x: Image,
        eps: Image,
        n: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
    ) -> Image:
        """Returns log p(y_s | y_t) - log q(y_s | y_t, x) of each value in nats.

        Here y_t = x + s_t eps, and n is the standard normal draw of y_s from q. The mean of the negative over n is the
        KL. This default uses the density of the step; rounding of y_s changes it by eps |y_s| / (s_s sqrt(c)), 3e-4 at
        gamma_s = -13 and T = 1000 in float32. vdmkit's own kernels avoid this cancellation by formulas without y_s.

        Raises:
            RecipeError: the estimate lacks what the kernel needs.
        """
        c, s_s = part_of_noise(gamma_t, gamma_s), jnp.exp(gamma_s / 2)
        sd, y_t = s_s * jnp.sqrt(c), x + jnp.exp(gamma_t / 2) * eps
        y_s = x + s_s * jnp.exp((gamma_s - gamma_t) / 2) * eps + sd * n  # y_t + c (x - y_t) is the mean of q
        step = self(estimate, y_t, gamma_t, gamma_s)
        return step.log_prob(y_s) - (jax.scipy.stats.norm.logpdf(n) - jnp.log(sd))


define_kind("kernel", "p(z_s | z_t), the reverse step when steps are finite", AbstractKernel)


def part_of_noise(gamma_t: Scalar, gamma_s: Scalar) -> Scalar:
    """Returns c, the share of the noise that a step removes."""
    return -jnp.expm1(gamma_s - gamma_t)
