# SPDX-License-Identifier: Apache-2.0
r"""Exponential integrators of x_hat: DPM-Solver++ and its stochastic versions (Lu et al. 2022, arXiv 2211.01095).

With h = (gamma_t - gamma_s) / 2, the step of log(alpha / sigma), and eta = 0 for the ODE, 1 for the SDE, a step is

    y_s = exp(-(1 + eta) h) y_t + int x_hat + s_s sqrt(1 - exp(-2 eta h)) n

and the methods differ in how they interpolate x_hat from its values at earlier steps.
"""

from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

from vdmkit.denoiser import Estimate
from vdmkit.kernel import part_of_noise
from vdmkit.registry import register
from vdmkit.sampling._denoise import Denoise
from vdmkit.sampling._sampler import AbstractSampler, History
from vdmkit.typing import Image, Scalar

Eta = Annotated[float, Ge(0), Le(10)]


def _fresh_noise(gamma_s: Scalar, eta_h: Scalar) -> Scalar:
    return jnp.exp(gamma_s / 2) * jnp.sqrt(-jnp.expm1(-2 * eta_h))


@register("sampler", "dpmpp_2m")
class DpmPlusPlus2M(AbstractSampler):
    """DPM-Solver++(2M): x_hat on the line through its last two values (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    Args:
        eta: 0 is the ODE; 1 the SDE, k-diffusion's dpmpp_2m_sde with the midpoint rule.
    """

    _: KW_ONLY
    eta: Eta = eqx.field(static=True, default=0.0)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, h = denoise(y_t, gamma_t), (gamma_t - gamma_s) / 2
        whole = (1 + self.eta) * h
        ratio = 2 * h / (history.gamma[0] - gamma_t)  # h over that of the last step
        extra = jnp.where((history.count > 0) & jnp.isfinite(ratio), ratio / 2, 0.0)
        x_hat = estimate.x_hat + extra * (estimate.x_hat - history.x_hat[0])
        y_s = jnp.exp(-whole) * y_t - jnp.expm1(-whole) * x_hat
        return y_s + _fresh_noise(gamma_s, self.eta * h) * noise[0] if self.eta else y_s, estimate


@register("sampler", "dpmpp_3m_sde")
class DpmPlusPlus3MSde(AbstractSampler):
    """The SDE with x_hat on the parabola through its last three values (k-diffusion's dpmpp_3m_sde).

    Args:
        eta: 0 is the ODE, 1 the SDE.
    """

    _: KW_ONLY
    eta: Eta = eqx.field(static=True, default=1.0)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, h = denoise(y_t, gamma_t), (gamma_t - gamma_s) / 2
        whole = (1 + self.eta) * h
        y_s = jnp.exp(-whole) * y_t - jnp.expm1(-whole) * estimate.x_hat + self._bent(estimate, gamma_t, h, history)
        return y_s + _fresh_noise(gamma_s, self.eta * h) * noise[0] if self.eta else y_s, estimate

    def _bent(self, estimate: Estimate, gamma_t: Scalar, h: Scalar, history: History) -> Image:
        """Returns the terms of the first and second differences of x_hat; zero for a step to gamma = -inf."""
        whole = (1 + self.eta) * h
        phi_2 = jnp.expm1(-whole) / whole + 1
        phi_3 = phi_2 / whole - 0.5
        r_0, r_1 = (history.gamma[0] - gamma_t) / 2 / h, (history.gamma[1] - history.gamma[0]) / 2 / h
        first, second = (estimate.x_hat - history.x_hat[0]) / r_0, (history.x_hat[0] - history.x_hat[1]) / r_1
        bend = (first - second) / (r_0 + r_1)
        parabola = phi_2 * (first + bend * r_0) - phi_3 * bend
        known = jnp.where(history.count > 1, parabola, phi_2 * first)
        return jnp.where((history.count > 0) & jnp.isfinite(h), known, 0.0)


class _Split(eqx.Module):
    """A step below the noise level gamma_s, and the noise `up` (in units of y) that leads back to it."""

    gamma_down: Scalar
    up: Scalar


def _split(gamma_t: Scalar, gamma_s: Scalar, eta: float) -> _Split:
    s_s = jnp.exp(gamma_s / 2)
    up = jnp.minimum(s_s, eta * s_s * jnp.sqrt(part_of_noise(gamma_t, gamma_s)))
    return _Split(jnp.log(s_s**2 - up**2), up)


@register("sampler", "euler_ancestral")
class EulerAncestral(AbstractSampler):
    """Euler's method to a lower noise level, then added noise (k-diffusion's euler_ancestral).

    Args:
        eta: 0 is Euler's method; 1 adds the ancestral noise.
    """

    _: KW_ONLY
    eta: Eta = eqx.field(static=True, default=1.0)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, to = denoise(y_t, gamma_t), _split(gamma_t, gamma_s, self.eta)
        down = jnp.exp(to.gamma_down / 2) - jnp.exp(gamma_t / 2)
        return y_t + down * estimate.eps_hat + to.up * noise[0], estimate


@register("sampler", "dpmpp_2s_ancestral")
class DpmPlusPlus2SAncestral(AbstractSampler):
    """DPM-Solver++(2S) to a lower noise level, then added noise (k-diffusion's dpmpp_2s_ancestral).

    Args:
        eta: 0 is the ODE; 1 adds the ancestral noise.
    """

    _: KW_ONLY
    eta: Eta = eqx.field(static=True, default=1.0)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, to = denoise(y_t, gamma_t), _split(gamma_t, gamma_s, self.eta)
        h = (gamma_t - to.gamma_down) / 2
        half = jnp.exp(-h / 2) * y_t - jnp.expm1(-h / 2) * estimate.x_hat
        middle = denoise(half, (gamma_t + to.gamma_down) / 2)
        x_hat = jnp.where(jnp.isneginf(to.gamma_down), estimate.x_hat, middle.x_hat)
        return jnp.exp(-h) * y_t - jnp.expm1(-h) * x_hat + to.up * noise[0], estimate
