# SPDX-License-Identifier: Apache-2.0
"""Reverse kernels p(z_s | z_t) in units of y = z / alpha = x + s eps, with s = sigma / alpha = exp(gamma / 2).

With c = 1 - SNR(t) / SNR(s), the true step given the data is, on every path (Kingma et al. 2021, App. A),

    q(y_s | y_t, x) = N( y_t + c (x - y_t), s_s^2 c ),   y_t + c (x - y_t) = y_t - s_t c eps

Gaussian kernels. If x given y_t had mean x_hat and variance s_t^2 m in each value, then p(y_s | y_t) would have

    mean  y_t - s_t c eps_hat        variance  c (s_s^2 + c s_t^2 m) = s_s^2 c [1 + m expm1(gamma_t - gamma_s)]

m = 0 gives the variance of q(y_s | y_t, x). m = alpha_t^2 is exact for x ~ N(0, I), and gives beta on the variance
preserving path. m = E(eps - eps_hat)^2 minimises the bound among the m that are equal for all values. For any variance
s_s^2 c e^w, where w = log [1 + m expm1(gamma_t - gamma_s)] for the variance above,

    KL(q || p) = 1/2 [ w - (1 - e^-w) + expm1(gamma_t - gamma_s) (eps - eps_hat)^2 e^-w ]

in each value; w = 0 is eq. 13 of Kingma et al. 2021, arXiv 2107.00630v6. At y_s = y_t - s_t c eps + s_s sqrt(c) n,
with delta = sqrt(expm1(gamma_t - gamma_s)) (eps_hat - eps),

    log p / q = 1/2 [ -w + (1 - e^-w) n^2 - e^-w (2 n delta + delta^2) ]

Gaussian kernel with variances learned by the network (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15).

    log variance = v log beta + (1 - v) log beta~

The largest variance, beta, is that of q(z_t | z_s) on the variance preserving path, and the smallest, beta~, that of
q(z_s | z_t, x). Both refer to the step from t to s, whatever its length, as in the paper's respaced sampling. Hence
w = v log(beta / beta~) = v log(1 + alpha_t^2 expm1(gamma_t - gamma_s)).

Mixture kernel, for denoisers that give probabilities p(x_k | y_t) of every level of every value.

    p(y_s | y_t) = sum_k p(x_k | y_t) q(y_s | y_t, x_k)

It tends to the Gaussian kernel as steps become short. The KL of a step to gamma = -inf, which draws levels, is the code
length of p(x | y_t). At y_s = y_t + c (x - y_t) + s_s sqrt(c) n, with d_k = sqrt(c) (x - x_k) / s_s,

    log p / q = log sum_k p(x_k | y_t) exp(-n d_k - d_k^2 / 2)

and KL(q || p) is the mean of its negative over n ~ N(0, 1).
"""

import abc
import itertools
from dataclasses import KW_ONLY
from typing import Annotated, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.arguments import Draws
from vdmkit.errors import RecipeError
from vdmkit.predictions import Estimate, level_values, require_variance_share
from vdmkit.process import Image
from vdmkit.registry import define_kind, register
from vdmkit.schedules import Scalar

__all__ = [
    "AbstractGaussianKernel",
    "AbstractKernel",
    "AbstractStep",
    "GaussianKernel",
    "LearnedRange",
    "MixtureKernel",
    "OptimalVariance",
    "part_of_noise",
]


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

    Subclasses set `noise_draws`, the number of normal draws that a sample needs for each value. Kernels that use
    variances learned by the network set `reads_variances = True`; such a kernel is the default for any number of steps
    of a model that was trained with it.
    """

    reads_variances: ClassVar[bool] = False
    noise_draws: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, estimate: Estimate, y_t: Image, gamma_t: Scalar, gamma_s: Scalar) -> AbstractStep:
        """Returns the step to gamma_s < gamma_t; at gamma_s = -inf, where there is no noise, y_s is an image.

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
        """Returns KL(q(y_s | y_t, x) || p(y_s | y_t)) of each value in nats, or an unbiased draw, at y_t = x + s_t eps.

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
        KL. The default implementation uses the density of the step. Rounding of y_s changes the result by
        eps |y_s| / (s_s sqrt(c)), where eps is the machine epsilon: 3e-4 at gamma_s = -13 and T = 1000 in float32.
        vdmkit's own kernels use formulas without y_s, which avoid this cancellation.

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
    """Returns c = 1 - SNR(t) / SNR(s), the fraction of the noise variance that a step removes."""
    return -jnp.expm1(gamma_s - gamma_t)


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
    """A kernel of Gaussian steps. Subclasses define w and may replace eps_hat."""

    @abc.abstractmethod
    def widening(self, estimate: Estimate, gamma_t: Scalar, gamma_s: Scalar) -> Scalar | Image:
        """Returns w, the log of the ratio of the variance to that of q(y_s | y_t, x)."""

    def eps_hat(self, estimate: Estimate, gamma_t: Scalar) -> Image:
        """Returns the estimate of eps that determines the mean."""
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
    """A kernel of Gaussian steps with one variance for all values. Subclasses define m at gamma_t."""

    @abc.abstractmethod
    def error(self, gamma: Scalar) -> Scalar:
        """Returns m >= 0, the mean squared error of eps_hat in each value."""

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
    """The variance that minimises the bound, from measured m (Analytic-DPM, Bao et al. 2022, arXiv 2201.06503, eq. 8).

    `vdmkit study` measures m. log m is interpolated linearly between the gammas and constant beyond them.

    Args:
        gammas: Gammas at which m was measured, in increasing order.
        errors: m = E(eps - eps_hat)^2 per value at these gammas.
    """

    gammas: Float[Array, " n"]
    log_errors: Float[Array, " n"]
    noise_draws: int = eqx.field(static=True)

    def __init__(self, *, gammas: tuple[Measured, ...], errors: tuple[Error, ...]):
        if len(gammas) != len(errors) or len(gammas) < 2:
            raise RecipeError(f"{len(gammas)} gammas and {len(errors)} errors: expected as many, at least 2.")
        # negated, so that NaN is refused
        if not all(a < b for a, b in itertools.pairwise(gammas)) or not all(0 < error < np.inf for error in errors):
            raise RecipeError("gammas must rise, and errors be above 0.")
        # logarithm in float64, because an error may be smaller than float32 can hold
        self.gammas, self.log_errors = jnp.asarray(gammas, float), jnp.asarray(np.log(errors), float)
        self.noise_draws = 1

    def error(self, gamma: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.exp(jnp.interp(gamma, self.gammas, self.log_errors))


@register("kernel", "learned_range")
class LearnedRange(AbstractNormalKernel):
    """Gaussian steps with learned variances, for prediction eps_and_range (Nichol & Dhariwal 2021, eq. 15).

    Args:
        clip: Whether x_hat is clipped to the range of the data, [-1, 1], as the authors do for likelihoods and samples.
    """

    reads_variances: ClassVar[bool] = True

    _: KW_ONLY
    clip: bool = eqx.field(static=True, default=False)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def widening(self, estimate: Estimate, gamma_t: Scalar, gamma_s: Scalar) -> Image:
        v = require_variance_share(estimate, "kernel learned_range")
        return v * jnp.log1p(jax.nn.sigmoid(-gamma_t) * jnp.expm1(gamma_t - gamma_s))

    def eps_hat(self, estimate: Estimate, gamma_t: Scalar) -> Image:
        if not self.clip:
            return estimate.eps_hat
        excess = estimate.x_hat - jnp.clip(estimate.x_hat, -1, 1)
        return estimate.eps_hat + jnp.exp(-gamma_t / 2) * excess  # keeps y_t = x_hat + s_t eps_hat


_ndtr, _ndtri = jax.scipy.special.ndtr, jax.scipy.special.ndtri


class _MixtureStep(AbstractStep):
    log_probs: Float[Array, "h w c v"]
    means: Float[Array, "h w c v"]
    sd: Scalar

    def sample(self, noise: Float[Array, "n h w c"]) -> Image:
        below = jnp.cumsum(jnp.exp(self.log_probs), axis=-1)[..., :-1]
        level = (below < _ndtr(noise[0])[..., None]).sum(-1, keepdims=True)
        return jnp.take_along_axis(self.means, level, axis=-1)[..., 0] + self.sd * noise[1]

    def log_prob(self, y_s: Image) -> Image:
        of_levels = jax.scipy.stats.norm.logpdf(y_s[..., None], self.means, self.sd)
        return jax.nn.logsumexp(self.log_probs + of_levels, axis=-1)

    def cdf(self, y_s: Image) -> Image:
        of_levels = jax.scipy.stats.norm.cdf(y_s[..., None], self.means, self.sd)
        return (jnp.exp(self.log_probs) * of_levels).sum(-1)


@register("kernel", "mixture")
class MixtureKernel(AbstractKernel):
    """The mixture of q(z_s | z_t, x_k) over levels k, for predictions that give their probabilities.

    Args:
        draws: Number of stratified draws of n for one estimate of the KL.
    """

    _: KW_ONLY
    draws: Draws = eqx.field(static=True, default=8)
    noise_draws: int = eqx.field(static=True, default=2, init=False)

    def __call__(self, estimate: Estimate, y_t: Image, gamma_t: Scalar, gamma_s: Scalar) -> AbstractStep:
        log_probs, c = _log_probs(estimate), part_of_noise(gamma_t, gamma_s)
        means = y_t[..., None] + c * (level_values(log_probs.shape[-1]) - y_t[..., None])
        return _MixtureStep(log_probs, means, jnp.exp(gamma_s / 2) * jnp.sqrt(c))

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
        log_probs = _log_probs(estimate)
        d = _distances(x, log_probs.shape[-1], gamma_t, gamma_s)
        shift = jax.random.uniform(key, x.shape, x.dtype)

        def of_draw(j: Scalar) -> Image:
            n = _ndtri(jnp.clip((j + shift) / self.draws, 1e-7, 1 - 1e-7))
            return -_log_mean(log_probs, d, n)

        return jax.lax.map(of_draw, jnp.arange(self.draws, dtype=x.dtype)).mean(0)

    def log_ratio(
        self,
        estimate: Estimate,
        x: Image,
        eps: Image,
        n: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
    ) -> Image:
        log_probs = _log_probs(estimate)
        return _log_mean(log_probs, _distances(x, log_probs.shape[-1], gamma_t, gamma_s), n)


def _distances(x: Image, levels: int, gamma_t: Scalar, gamma_s: Scalar) -> Float[Array, "h w c v"]:
    """Returns d_k, the distance in standard deviations between the means of q given x and given level k."""
    c = part_of_noise(gamma_t, gamma_s)
    return jnp.sqrt(c) * jnp.exp(-gamma_s / 2) * (x[..., None] - level_values(levels))


def _log_mean(log_probs: Float[Array, "h w c v"], d: Float[Array, "h w c v"], n: Image) -> Image:
    """Returns log p / q of each value: the log mean, over levels k, of the ratio of q given x_k to q given x."""
    return jax.nn.logsumexp(log_probs - n[..., None] * d - d**2 / 2, axis=-1)


def _log_probs(estimate: Estimate) -> Float[Array, "h w c v"]:
    if estimate.log_probs is None:
        raise RecipeError(
            "kernel mixture: the prediction gives no probabilities of levels. Use prediction categorical or lattice, "
            "or kernel gaussian."
        )
    return estimate.log_probs
