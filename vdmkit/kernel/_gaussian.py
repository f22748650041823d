# SPDX-License-Identifier: Apache-2.0
r"""Gaussian steps at x = x_hat, whose variance allows for an error of eps_hat.

If x given y_t had mean x_hat and variance s_t^2 m in each value, then p(y_s | y_t) would have

    mean  y_t - s_t c eps_hat        variance  c (s_s^2 + c s_t^2 m) = s_s^2 c [1 + m expm1(gamma_t - gamma_s)]

m = 0 is the variance of q(y_s | y_t, x). m = alpha_t^2 is exact for x ~ N(0, I), and is beta on the variance preserving
path. m = E(eps - eps_hat)^2 is the best that one number for all values can be. Whatever the variance s_s^2 c e^w,

    KL(q || p) = 1/2 [ w - (1 - e^-w) + expm1(gamma_t - gamma_s) (eps - eps_hat)^2 e^-w ]

for each value (Kingma et al. 2021, arXiv 2107.00630v6, eq. 13, has w = 0); w = log [1 + m expm1(gamma_t - gamma_s)] by
such an m. At one y_s = y_t - s_t c eps + s_s sqrt(c) n, with delta = sqrt(expm1(gamma_t - gamma_s)) (eps_hat - eps),

    log p / q = 1/2 [ -w + (1 - e^-w) n^2 - e^-w (2 n delta + delta^2) ]
"""

import abc
import itertools
from dataclasses import KW_ONLY
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser import Estimate
from vdmkit.errors import RecipeError
from vdmkit.kernel._kernel import AbstractKernel, AbstractStep, part_of_noise
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar

Measured = Annotated[float, Ge(-100), Le(100)]  # gamma
Error = Annotated[float, Gt(0), Le(1e12)]


class _GaussianStep(AbstractStep):
    mean: Image
    sd: Scalar | Image

    def sample(self, noise: Float[Array, "n h w c"]) -> Image:
        return self.mean + self.sd * noise[0]

    def log_prob(self, y_s: Image) -> Image:
        return jax.scipy.stats.norm.logpdf(y_s, self.mean, self.sd)

    def cdf(self, y_s: Image) -> Image:
        return jax.scipy.stats.norm.cdf(y_s, self.mean, self.sd)


class AbstractNormalKernel(AbstractKernel):
    """A kernel of Gaussian steps; an implementer supplies w, and may replace eps_hat."""

    @abc.abstractmethod
    def widening(self, estimate: Estimate, gamma_t: Scalar, gamma_s: Scalar) -> Scalar | Image:
        """Returns w, the log of the variance divided by that of q(y_s | y_t, x)."""

    def eps_hat(self, estimate: Estimate, gamma_t: Scalar) -> Image:
        """Returns the estimate of eps that gives the mean."""
        return estimate.eps_hat

    def __call__(self, estimate: Estimate, y_t: Image, gamma_t: Scalar, gamma_s: Scalar) -> AbstractStep:
        c = part_of_noise(gamma_t, gamma_s)
        sd = jnp.sqrt(c) * jnp.exp((gamma_s + self.widening(estimate, gamma_t, gamma_s)) / 2)
        sd = jnp.where(jnp.isneginf(gamma_s), 0.0, sd)  # a step to the image itself is deterministic
        return _GaussianStep(y_t - jnp.exp(gamma_t / 2) * c * self.eps_hat(estimate, gamma_t), sd)

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
        w, rate = self.widening(estimate, gamma_t, gamma_s), jnp.expm1(gamma_t - gamma_s)
        return 0.5 * (w + jnp.expm1(-w) + rate * (eps - self.eps_hat(estimate, gamma_t)) ** 2 * jnp.exp(-w))

    def log_ratio(
        self,
        estimate: Estimate,
        x: Image,
        eps: Image,
        n: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
    ) -> Image:
        w = self.widening(estimate, gamma_t, gamma_s)
        delta = jnp.sqrt(jnp.expm1(gamma_t - gamma_s)) * (self.eps_hat(estimate, gamma_t) - eps)
        return -0.5 * (w + jnp.expm1(-w) * n**2 + jnp.exp(-w) * (2 * n + delta) * delta)


class AbstractGaussianKernel(AbstractNormalKernel):
    """A kernel of Gaussian steps of one variance for all values; an implementer supplies m at gamma_t."""

    @abc.abstractmethod
    def error(self, gamma: Scalar) -> Scalar:
        """Returns m >= 0, the mean squared error of a value of eps_hat."""

    def widening(self, estimate: Estimate, gamma_t: Scalar, gamma_s: Scalar) -> Scalar:
        return jnp.log1p(self.error(gamma_t) * jnp.expm1(gamma_t - gamma_s))


@register("kernel", "gaussian")
class GaussianKernel(AbstractGaussianKernel):
    """q(z_s | z_t, x = x_hat) (Kingma et al. 2021, section 3.2).

    Args:
        variance: "small" is the variance of q(z_s | z_t, x); "large" is beta, the variance of q(z_t | z_s) on the
            variance preserving path (Ho et al. 2020, arXiv 2006.11239, section 3.2).
    """

    _: KW_ONLY
    variance: Literal["small", "large"] = eqx.field(static=True, default="small")
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def error(self, gamma: Scalar) -> Scalar:
        return jnp.zeros_like(gamma) if self.variance == "small" else jax.nn.sigmoid(-gamma)


@register("kernel", "optimal_variance")
class OptimalVariance(AbstractGaussianKernel):
    """The variance that minimises the bound, by measured m (Analytic-DPM, Bao et al. 2022, arXiv 2201.06503, eq. 8).

    `vdmkit study` measures m. log m is interpolated linearly between the gammas and constant beyond them.

    Args:
        gammas: Rising gammas at which m was measured.
        errors: m at these gammas, E(eps - eps_hat)^2 per value.
    """

    gammas: Float[Array, " n"]
    log_errors: Float[Array, " n"]
    noise_draws: int = eqx.field(static=True)

    def __init__(self, *, gammas: tuple[Measured, ...], errors: tuple[Error, ...]):
        if len(gammas) != len(errors) or len(gammas) < 2:
            raise RecipeError(f"{len(gammas)} gammas and {len(errors)} errors: expected as many, at least 2.")
        # written so that a NaN is refused
        if not all(a < b for a, b in itertools.pairwise(gammas)) or not all(0 < error < np.inf for error in errors):
            raise RecipeError("gammas must rise, and errors be above 0.")
        # logarithm in float64, because an error may be smaller than float32 can hold
        self.gammas, self.log_errors = jnp.asarray(gammas, float), jnp.asarray(np.log(errors), float)
        self.noise_draws = 1

    def error(self, gamma: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.exp(jnp.interp(gamma, self.gammas, self.log_errors))
