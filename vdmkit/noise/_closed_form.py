# SPDX-License-Identifier: Apache-2.0
r"""Schedules in closed form between ends given by the recipe. u rises linearly in t from u_0 to u_1.

linear            gamma = u, also with learned ends
cosine            gamma = 2 log tan u         alpha = cos u where it is variance preserving
flow matching     gamma = 2 logit u           sigma = u on the straight line
karras            gamma = 2 rho log u         sigma / alpha = u^rho
log normal        gamma = 2 (mean + std Phi^-1(u))
"""

import math
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
import scipy
from annotated_types import Ge, Le
from jax.scipy.special import logit, ndtri
from jaxtyping import Array, Float

from vdmkit.limits import MAX_GAMMA, Gamma, LogSigma, Sigma, Width
from vdmkit.noise._schedule import AbstractSchedule
from vdmkit.registry import register
from vdmkit.typing import Scalar

Argument = Annotated[float, Ge(-MAX_GAMMA), Le(MAX_GAMMA)]
Rho = Annotated[float, Ge(0.5), Le(100)]
Resolution = Annotated[float, Ge(1), Le(65_536)]


def _between(low: float, high: float, t: Scalar) -> Scalar:
    return low * (1 - t) + high * t  # exact at both ends, even if they differ much in size


@register("schedule", "fixed_linear")
class FixedLinear(AbstractSchedule):
    """gamma rises linearly from gamma_min to gamma_max; nothing is learned."""

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)

    def __call__(self, t: Scalar) -> Scalar:
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t


@register("schedule", "learned_linear")
class LearnedLinear(AbstractSchedule):
    """gamma = b + |w| t with learned ends, trained on the bound (Kingma et al. 2021, Table 1)."""

    w: Float[Array, "1"]
    b: Float[Array, "1"]
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(self, *, gamma_min: Gamma = -13.3, gamma_max: Gamma = 5.0):
        self.w = jnp.array([gamma_max - gamma_min], dtype=float)
        self.b = jnp.array([gamma_min], dtype=float)
        self.gamma_min = gamma_min
        self.gamma_max = gamma_max

    def __call__(self, t: Scalar) -> Scalar:
        return self.b[0] + jnp.abs(self.w[0]) * t


@register("schedule", "cosine")
class Cosine(AbstractSchedule):
    """gamma = 2 log tan u (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17, with ends in place of their offset)."""

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)

    def __call__(self, t: Scalar) -> Scalar:
        first, last = (math.atan(math.exp(gamma / 2)) for gamma in (self.gamma_min, self.gamma_max))
        return 2 * jnp.log(jnp.tan(_between(first, last, t)))


@register("schedule", "flow_matching")
class FlowMatching(AbstractSchedule):
    """gamma = 2 logit u: sigma = u on the straight line (Lipman et al. 2023, arXiv 2210.02747)."""

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=13.3)

    def __call__(self, t: Scalar) -> Scalar:
        first, last = (float(scipy.special.expit(gamma / 2)) for gamma in (self.gamma_min, self.gamma_max))
        return 2 * logit(_between(first, last, t))


@register("schedule", "log_linear")
class LogLinear(AbstractSchedule):
    """log(sigma / alpha) linear in t: the variance exploding SDE (Song et al. 2021, arXiv 2011.13456, App. C)."""

    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(self, *, sigma_min: Sigma = 0.01, sigma_max: Sigma = 50.0):
        self.gamma_min, self.gamma_max = 2 * math.log(sigma_min), 2 * math.log(sigma_max)

    def __call__(self, t: Scalar) -> Scalar:
        return _between(self.gamma_min, self.gamma_max, t)


@register("schedule", "karras")
class Karras(AbstractSchedule):
    """(sigma / alpha)^(1 / rho) linear in t: EDM's sampling steps (Karras et al. 2022, arXiv 2206.00364, eq. 5)."""

    rho: float = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self, *, sigma_min: Sigma = 0.002, sigma_max: Sigma = 80.0, rho: Annotated[float, Ge(0.5), Le(100)] = 7.0
    ):
        self.rho = rho
        self.gamma_min, self.gamma_max = 2 * math.log(sigma_min), 2 * math.log(sigma_max)

    def __call__(self, t: Scalar) -> Scalar:
        first, last = (math.exp(gamma / 2 / self.rho) for gamma in (self.gamma_min, self.gamma_max))
        return 2 * self.rho * jnp.log(_between(first, last, t))


@register("schedule", "log_normal")
class LogNormal(AbstractSchedule):
    """log(sigma / alpha) ~ N(mean, std^2) for uniform t: EDM's training distribution (Karras et al. 2022, Table 1).

    The distribution is truncated at sigma_min and sigma_max.
    """

    mean: float = eqx.field(static=True)
    std: float = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(self, *, mean: LogSigma = -1.2, std: Width = 1.2, sigma_min: Sigma = 0.002, sigma_max: Sigma = 80.0):
        self.mean, self.std = mean, std
        self.gamma_min, self.gamma_max = 2 * math.log(sigma_min), 2 * math.log(sigma_max)

    def __call__(self, t: Scalar) -> Scalar:
        # Computed from the nearer tail of the normal distribution: 1 - u would round the noisy tail away.
        scores = [(gamma / 2 - self.mean) / self.std for gamma in (self.gamma_min, self.gamma_max)]
        below = _between(float(scipy.special.ndtr(scores[0])), float(scipy.special.ndtr(scores[1])), t)
        above = _between(float(scipy.special.ndtr(-scores[0])), float(scipy.special.ndtr(-scores[1])), t)
        return 2 * (self.mean + self.std * jnp.where(below < 0.5, ndtri(below), -ndtri(above)))


@register("schedule", "sigmoid")
class Sigmoid(AbstractSchedule):
    """alpha^2 falls as a sigmoid of t (Jabri et al. 2022, arXiv 2212.11972; Chen 2023, arXiv 2301.10972).

    alpha^2 would be 1 and 0 at the ends; gamma_min and gamma_max replace these values.

    Args:
        gamma_min: gamma at t = 0.
        gamma_max: gamma at t = 1.
        start: Argument of the sigmoid at t = 0.
        end: Argument of the sigmoid at t = 1.
        tau: Temperature; the arguments are divided by it.
    """

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)
    start: Argument = eqx.field(static=True, default=-3.0)
    end: Argument = eqx.field(static=True, default=3.0)
    tau: Width = eqx.field(static=True, default=1.0)

    def __call__(self, t: Scalar) -> Scalar:
        first, last = (float(scipy.special.expit(u / self.tau)) for u in (self.start, self.end))
        # sigma^2 and alpha^2 = 1 - sigma^2 at both ends, instead of 0 and 1
        noise_0, noise_1 = (float(scipy.special.expit(gamma)) for gamma in (self.gamma_min, self.gamma_max))
        signal_0, signal_1 = (float(scipy.special.expit(-gamma)) for gamma in (self.gamma_min, self.gamma_max))
        u = jnp.tanh(_between(self.start, self.end, t) / self.tau / 2) / 2 + 0.5
        share = (u - first) / (last - first)
        rest = (last - u) / (last - first)
        return jnp.log(noise_0 * rest + noise_1 * share) - jnp.log(signal_0 * rest + signal_1 * share)


@register("schedule", "shifted_cosine")
class ShiftedCosine(AbstractSchedule):
    """The cosine schedule shifted to more noise for larger images (Hoogeboom et al. 2023, arXiv 2301.11093, eq. 4).

    Args:
        gamma_min: gamma at t = 0 before the shift.
        gamma_max: gamma at t = 1 before the shift.
        resolution: Height (or width) of the images.
        base: Resolution at which the shift is zero.
    """

    shift: float = eqx.field(static=True)
    cosine: Cosine
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        gamma_min: Gamma = -13.3,
        gamma_max: Gamma = 5.0,
        resolution: Resolution = 128.0,
        base: Resolution = 64.0,
    ):
        self.shift = 2 * math.log(resolution / base)
        self.cosine = Cosine(gamma_min=gamma_min, gamma_max=gamma_max)
        self.gamma_min, self.gamma_max = gamma_min + self.shift, gamma_max + self.shift

    def __call__(self, t: Scalar) -> Scalar:
        return self.cosine(t) + self.shift
