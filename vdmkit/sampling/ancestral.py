# SPDX-License-Identifier: Apache-2.0
"""Ancestral sampling from p(z_s | z_t), and DDIM."""

from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

from vdmkit.predictions import Estimate
from vdmkit.process import Image
from vdmkit.registry import Choice, built, register
from vdmkit.reverse import AbstractKernel, part_of_noise
from vdmkit.sampling.sampler import AbstractSampler, Denoise, History
from vdmkit.schedules import Scalar

PAPERS = Choice("kernel", "gaussian")


@register("sampler", "ancestral")
class Ancestral(AbstractSampler):
    """z_s ~ p(z_s | z_t), with noise in every step including the last (Kingma et al. 2021, section 3.2).

    Args:
        kernel: The reverse kernel p(z_s | z_t); "gaussian" is q(z_s | z_t, x = x_hat(z_t)).
    """

    kernel: AbstractKernel
    noise_draws: int = eqx.field(static=True)

    def __init__(self, *, kernel: Annotated[Choice | AbstractKernel, "kernel"] = PAPERS):
        self.kernel = built(kernel)
        self.noise_draws = self.kernel.noise_draws

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
        return self.kernel(estimate, y_t, gamma_t, gamma_s).sample(noise), estimate


@register("sampler", "ddim")
class Ddim(AbstractSampler):
    """y_s = x_hat + sqrt(s_s^2 - v) eps_hat + sqrt(v) n, where v = eta^2 times the ancestral variance.

    Song et al. 2021, arXiv 2010.02502, eq. 12.

    Args:
        eta: Scale of the noise; 0 is Euler's method for the probability-flow ODE in sigma / alpha.
    """

    _: KW_ONLY
    eta: Annotated[float, Ge(0), Le(1)] = eqx.field(static=True, default=0.0)
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
        estimate, c = denoise(y_t, gamma_t), part_of_noise(gamma_t, gamma_s)
        kept = jnp.exp(gamma_s / 2) * jnp.sqrt(1 - self.eta**2 * c)
        fresh = self.eta * jnp.exp(gamma_s / 2) * jnp.sqrt(c)
        # equals x_hat + kept eps_hat, but without the rounding of x_hat
        return y_t + (kept - jnp.exp(gamma_t / 2)) * estimate.eps_hat + fresh * noise[0], estimate
