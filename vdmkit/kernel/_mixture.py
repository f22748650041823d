# SPDX-License-Identifier: Apache-2.0
r"""The step of a denoiser that gives probabilities p(x_k | y_t) for every value and level.

    p(y_s | y_t) = sum_k p(x_k | y_t) q(y_s | y_t, x_k)

Short steps tend to the Gaussian one. The KL of a step to gamma = -inf, which draws levels, is the code length of
p(x | y_t). At y_s = y_t + c (x - y_t) + s_s sqrt(c) n, with d_k = sqrt(c) (x - x_k) / s_s,

    log p / q = log sum_k p(x_k | y_t) exp(-n d_k - d_k^2 / 2)

and KL(q || p) is the mean of its negative over n ~ N(0, 1).
"""

from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser import Estimate
from vdmkit.errors import RecipeError
from vdmkit.kernel._kernel import AbstractKernel, AbstractStep, part_of_noise
from vdmkit.limits import Draws
from vdmkit.observation import level_values
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar

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
        draws: Number of evenly spaced draws of n for one estimate of the KL.
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
    """Returns d_k, the distance of the means of q given x and given level k in standard deviations."""
    c = part_of_noise(gamma_t, gamma_s)
    return jnp.sqrt(c) * jnp.exp(-gamma_s / 2) * (x[..., None] - level_values(levels))


def _log_mean(log_probs: Float[Array, "h w c v"], d: Float[Array, "h w c v"], n: Image) -> Image:
    """Returns the log of the mean over levels of the ratio of q given x_k to q given x."""
    return jax.nn.logsumexp(log_probs - n[..., None] * d - d**2 / 2, axis=-1)


def _log_probs(estimate: Estimate) -> Float[Array, "h w c v"]:
    if estimate.log_probs is None:
        raise RecipeError(
            "kernel mixture: the prediction gives no probabilities of levels. Use prediction categorical or lattice, "
            "or kernel gaussian."
        )
    return estimate.log_probs
