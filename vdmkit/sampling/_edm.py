# SPDX-License-Identifier: Apache-2.0
"""The probability-flow ODE dy / ds = eps_hat, s = sigma / alpha, by Euler's, Heun's and multistep methods."""

from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

from vdmkit.denoiser import Estimate
from vdmkit.registry import register
from vdmkit.sampling._axis import AXES, AxisName
from vdmkit.sampling._denoise import Denoise
from vdmkit.sampling._sampler import AbstractSampler, History
from vdmkit.typing import Image, Scalar

NotNegative = Annotated[float, Ge(0), Le(1e6)]


@register("sampler", "euler")
class Euler(AbstractSampler):
    """Euler's method (Karras et al. 2022, arXiv 2206.00364, section 3).

    Args:
        axis: Axis in which a step is linear: "sigma" is DDIM with eta = 0; "variance" is sigma^2, and "vp_time" the
            time of the variance preserving SDE in its own scaling.
    """

    _: KW_ONLY
    axis: AxisName = eqx.field(static=True, default="sigma")
    noise_draws: int = eqx.field(static=True, default=0, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, axis = denoise(y_t, gamma_t), AXES[self.axis]
        return axis.move(y_t, gamma_t, gamma_s, axis.slope(y_t, gamma_t, estimate)), estimate


@register("sampler", "heun")
class Heun(AbstractSampler):
    """Heun's second-order method with noise added before each step (Karras et al. 2022, algorithm 2).

    Args:
        churn: Amount of noise over all steps, S_churn; 0 is the ODE.
        s_min: Smallest sigma / alpha at which noise is added.
        s_max: Largest sigma / alpha at which noise is added.
        s_noise: Standard deviation of the added noise.
        axis: Axis in which a step is linear, as in Euler's method.
    """

    _: KW_ONLY
    churn: NotNegative = eqx.field(static=True, default=0.0)
    s_min: NotNegative = eqx.field(static=True, default=0.0)
    s_max: NotNegative = eqx.field(static=True, default=1e6)
    s_noise: Annotated[float, Ge(0), Le(10)] = eqx.field(static=True, default=1.0)
    axis: AxisName = eqx.field(static=True, default="sigma")
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
        s_t, axis = jnp.exp(gamma_t / 2), AXES[self.axis]
        churn = self._churn(s_t, history)
        gamma_hat = gamma_t + 2 * jnp.log1p(churn)
        y_hat = y_t + s_t * jnp.sqrt(churn * (2 + churn)) * self.s_noise * noise[0]  # s_hat^2 - s_t^2, without rounding
        estimate = denoise(y_hat, gamma_hat)
        first = axis.slope(y_hat, gamma_hat, estimate)
        euler = axis.move(y_hat, gamma_hat, gamma_s, first)
        slope = (first + axis.slope(euler, gamma_s, denoise(euler, gamma_s))) / 2
        # The slope is undefined at gamma = -inf, so the last step of a grid to there is Euler's.
        return jnp.where(jnp.isneginf(gamma_s), euler, axis.move(y_hat, gamma_hat, gamma_s, slope)), estimate

    def _churn(self, s_t: Scalar, history: History) -> Scalar:
        share = jnp.minimum(self.churn / history.steps, jnp.sqrt(2.0) - 1)
        return jnp.where((s_t >= self.s_min) & (s_t <= self.s_max), share, 0.0)


@register("sampler", "dpm_2")
class Dpm2(AbstractSampler):
    """The midpoint method, at the middle of log sigma (Lu et al. 2022, arXiv 2206.00927; k-diffusion's dpm_2)."""

    noise_draws: int = eqx.field(static=True, default=0, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, gamma = denoise(y_t, gamma_t), (gamma_t + gamma_s) / 2
        s_s, s, s_t = (jnp.exp(g / 2) for g in (gamma_s, gamma, gamma_t))
        middle = denoise(y_t + (s - s_t) * estimate.eps_hat, gamma)
        slope = jnp.where(jnp.isneginf(gamma_s), estimate.eps_hat, middle.eps_hat)
        return y_t + (s_s - s_t) * slope, estimate


@register("sampler", "lms")
class Lms(AbstractSampler):
    """A linear multistep method with the slopes of up to four steps (k-diffusion's lms).

    Args:
        order: Number of slopes; fewer in the first steps.
    """

    _: KW_ONLY
    order: Annotated[int, Ge(1), Le(4)] = eqx.field(static=True, default=4)
    noise_draws: int = eqx.field(static=True, default=0, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate = denoise(y_t, gamma_t)
        slopes = jnp.concatenate([estimate.eps_hat[None], history.eps_hat])
        nodes = jnp.exp(jnp.concatenate([gamma_t[None], history.gamma]) / 2)
        ends = jnp.exp(gamma_t / 2), jnp.exp(gamma_s / 2)
        table = jnp.stack([_adams_weights(nodes, n, *ends) for n in range(1, self.order + 1)])
        weights = table[jnp.minimum(history.count, self.order - 1)]
        return y_t + jnp.tensordot(weights, slopes, axes=1), estimate


def _adams_weights(nodes: Float[Array, "4"], order: int, start: Scalar, end: Scalar) -> Float[Array, "4"]:
    """Returns integrals from `start` to `end` of the Lagrange polynomials of the first `order` nodes, then zeros."""
    # Two Gauss points are exact for polynomials of degree 3.
    points = (start + end) / 2 + (end - start) / 2 * jnp.array([-1, 1]) / jnp.sqrt(3.0)

    def integral(j: int) -> Scalar:
        others = [k for k in range(order) if k != j]
        values = [(points - nodes[k]) / (nodes[j] - nodes[k]) for k in others]
        return (end - start) / 2 * jnp.prod(jnp.stack([jnp.ones(2), *values]), axis=0).sum()

    return jnp.stack([integral(j) if j < order else jnp.zeros_like(start) for j in range(4)])
