# SPDX-License-Identifier: Apache-2.0
r"""Gaussian steps whose variances the network learns (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15).

    log variance = v log beta + (1 - v) log beta~

The largest variance, beta, is that of q(z_t | z_s) on the variance preserving path, and the least, beta~, that of
q(z_s | z_t, x). Both are of the step from t to s, whatever its length, as with respaced steps of the paper. As
log beta / beta~ = log(1 + alpha_t^2 expm1(gamma_t - gamma_s)), w is v times as much.
"""

from dataclasses import KW_ONLY
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from vdmkit.denoiser import Estimate
from vdmkit.estimate import require_variance_share
from vdmkit.kernel._gaussian import AbstractNormalKernel
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar


@register("kernel", "learned_range")
class LearnedRange(AbstractNormalKernel):
    """Gaussian steps with variances by the network, for prediction eps_and_range (Nichol & Dhariwal 2021, eq. 15).

    Args:
        clip: Whether x_hat is clipped to the range of the data, [-1, 1], as the authors measure and sample.
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
        return estimate.eps_hat + jnp.exp(-gamma_t / 2) * excess  # of the same y_t = x_hat + s_t eps_hat
