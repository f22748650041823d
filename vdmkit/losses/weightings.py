# SPDX-License-Identifier: Apache-2.0
"""Weights w of the diffusion loss 1/2 w gamma'(t) |eps - eps_hat|^2. Only w = 1 is the likelihood bound.

Most losses in the literature are a mean over t of m(gamma) |eps - eps_hat|^2, without gamma'(t), so their weight
depends on the schedule: w = 2 m(gamma) / gamma'(t). With T steps, T expm1(gamma_t - gamma_s) replaces gamma'. Errors
of other predictions are multiples of the error of eps:

    |x - x_hat|^2 = e^gamma |eps - eps_hat|^2
    |v - v_hat|^2 = (1 + e^gamma) |eps - eps_hat|^2
    |u - u_hat|^2 = (1 + e^(gamma / 2))^2 |eps - eps_hat|^2,   u = eps - x
"""

import abc
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

from vdmkit.arguments import DataScale, LogSigma
from vdmkit.losses.bound import NoiseLevel
from vdmkit.predictions import Estimate
from vdmkit.process import Image
from vdmkit.registry import define_kind, register
from vdmkit.schedules import Scalar

Positive = Annotated[float, Ge(1e-6), Le(1e6)]


class AbstractWeighting(eqx.Module):
    """A weighting of the diffusion loss. Subclasses define w >= 0.

    A loss of T steps that is not w times that of the bound overrides `diffusion` and `reconstruction`.
    """

    @abc.abstractmethod
    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        """Returns the weight at gamma; `rate` is gamma'(t), or T expm1(gamma_t - gamma_s) with T steps."""

    def diffusion(self, kl: Callable[[Estimate], Scalar], estimate: Estimate, eps: Image, noise: NoiseLevel) -> Scalar:
        """Returns the loss of an estimate at one of T steps; `kl` returns T times the KL of the step in nats."""
        return self(noise.gamma, noise.rate) * kl(estimate)

    def reconstruction(self, loss: Callable[..., Scalar]) -> Scalar:
        """Returns the loss of the decoder; `loss` returns that of the bound, see `reconstruction_loss`."""
        return loss()


define_kind("weighting", "w in the loss; elbo (w = 1) is the likelihood bound", AbstractWeighting)


@register("weighting", "elbo")
class Elbo(AbstractWeighting):
    """w = 1: the variational bound on the likelihood."""

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return jnp.ones_like(gamma)


@register("weighting", "sigmoid")
class SigmoidWeighting(AbstractWeighting):
    """w = sigmoid(gamma + bias) (Kingma & Gao 2023, arXiv 2303.00848; Hoogeboom et al. 2024, arXiv 2410.19324)."""

    _: KW_ONLY
    bias: Annotated[float, Ge(-30), Le(30)] = eqx.field(static=True, default=2.0)

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return jax.nn.sigmoid(gamma + self.bias)


@register("weighting", "edm_monotonic")
class EdmMonotonic(AbstractWeighting):
    """EDM's weight as a function of gamma, constant above its maximum (Kingma & Gao 2023, arXiv 2303.00848).

    EDM's weight is w ~ N(gamma; 2 mean, (2 std)^2) (e^gamma + sd^2), here scaled to a maximum of 1. In the notation of
    the paper, gamma = -lambda.

    Args:
        mean: Mean of log(sigma / alpha) in EDM's training.
        std: Standard deviation of log(sigma / alpha) in EDM's training.
        sd: Standard deviation of the data.
    """

    _: KW_ONLY
    mean: LogSigma = eqx.field(static=True, default=-1.2)
    std: Annotated[float, Ge(0.01), Le(10)] = eqx.field(static=True, default=1.2)
    sd: DataScale = eqx.field(static=True, default=0.5)

    def log_weight(self, gamma: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Returns the log of EDM's weight, up to a constant."""
        return -(((gamma / 2 - self.mean) / self.std) ** 2) / 2 + jnp.log(jnp.exp(gamma) + self.sd**2)

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        grid = jnp.linspace(2 * self.mean, 2 * self.mean + 8 * self.std**2 + 8, 2048)
        values = self.log_weight(grid)
        top = values.argmax()
        return jnp.exp(self.log_weight(jnp.minimum(gamma, grid[top])) - values[top])


@register("weighting", "simple")
class Simple(AbstractWeighting):
    """|eps - eps_hat|^2 (Ho et al. 2020, arXiv 2006.11239, eq. 14)."""

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 / rate


@register("weighting", "hybrid")
class Hybrid(AbstractWeighting):
    """|eps - eps_hat|^2 + share L_vlb, where L_vlb only trains variances (Nichol & Dhariwal 2021, arXiv 2102.09672).

    L_vlb is the bound of T steps, in bits as in the authors' code, without gradients of x_hat and eps_hat. The kernel
    must use learned variances, as learned_range does.

    Args:
        share: lambda of section 3.1, the weight of L_vlb.
    """

    _: KW_ONLY
    share: Positive = eqx.field(static=True, default=1e-3)

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 / rate

    def diffusion(self, kl: Callable[[Estimate], Scalar], estimate: Estimate, eps: Image, noise: NoiseLevel) -> Scalar:
        return ((eps - estimate.eps_hat) ** 2).sum() + self.share / math.log(2) * kl(_with_fixed_mean(estimate))

    def reconstruction(self, loss: Callable[..., Scalar]) -> Scalar:
        return self.share / math.log(2) * loss(_with_fixed_mean)


def _with_fixed_mean(estimate: Estimate) -> Estimate:
    """Returns the estimate without gradients of x_hat and eps_hat."""
    return eqx.tree_at(lambda e: (e.x_hat, e.eps_hat), estimate, replace_fn=jax.lax.stop_gradient)


@register("weighting", "snr")
class Snr(AbstractWeighting):
    """SNR^power |x - x_hat|^2: power 1 is `simple`, and power 0 is the unweighted error of x."""

    _: KW_ONLY
    power: Annotated[float, Ge(-1), Le(3)] = eqx.field(static=True, default=1.0)

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 * jnp.exp((1 - self.power) * gamma) / rate


@register("weighting", "truncated_snr")
class TruncatedSnr(AbstractWeighting):
    """max(SNR, 1) |x - x_hat|^2 (Salimans & Ho 2022, arXiv 2202.00512, eq. 9)."""

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 * jnp.maximum(1, jnp.exp(gamma)) / rate


@register("weighting", "min_snr")
class MinSnr(AbstractWeighting):
    """min(SNR, limit) |x - x_hat|^2 (Hang et al. 2023, arXiv 2303.09556)."""

    _: KW_ONLY
    limit: Positive = eqx.field(static=True, default=5.0)

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 * jnp.minimum(1, self.limit * jnp.exp(gamma)) / rate


@register("weighting", "p2")
class P2(AbstractWeighting):
    """|eps - eps_hat|^2 / (k + SNR)^power (Choi et al. 2022, arXiv 2204.00227, eq. 8)."""

    _: KW_ONLY
    k: Positive = eqx.field(static=True, default=1.0)
    power: Annotated[float, Ge(0), Le(2)] = eqx.field(static=True, default=1.0)

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 / (self.k + jnp.exp(-gamma)) ** self.power / rate


@register("weighting", "v")
class VWeighting(AbstractWeighting):
    """|v - v_hat|^2 = (SNR + 1) |x - x_hat|^2 (Salimans & Ho 2022, arXiv 2202.00512)."""

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 * (1 + jnp.exp(gamma)) / rate


@register("weighting", "velocity")
class VelocityWeighting(AbstractWeighting):
    """|u - u_hat|^2 with u = eps - x, the loss of flow matching (Lipman et al. 2023, arXiv 2210.02747)."""

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 * (1 + jnp.exp(gamma / 2)) ** 2 / rate


@register("weighting", "edm")
class EdmWeighting(AbstractWeighting):
    """|F - F_hat|^2 = (s^2 + sd^2) / (s sd)^2 |x - x_hat|^2, s = sigma / alpha (Karras et al. 2022, Table 1)."""

    _: KW_ONLY
    sd: DataScale = eqx.field(static=True, default=0.5)

    def __call__(self, gamma: Scalar, rate: Scalar) -> Scalar:
        return 2 * (1 + jnp.exp(gamma) / self.sd**2) / rate
