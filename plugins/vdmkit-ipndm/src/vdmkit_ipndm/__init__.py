# SPDX-License-Identifier: Apache-2.0
r"""The improved pseudo numerical methods of Zhang & Chen 2023, as a plugin of vdmkit.

    y_s = y_t + (s_s - s_t) sum_j w_j eps_hat_j,   s = sigma / alpha,   Adams-Bashforth w for even steps

On even steps of s this is the Adams-Bashforth method, of the order of the weights. On other grids the weights are the
same: on a grid s(u), even in u, they give the mean of eps_hat over u instead of over s. The two differ by
h^2 / 12 (d eps_hat / du) s'' / s' to leading order, so that the method is of second order for any number of weights.
"""

from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

import vdmkit
from vdmkit.predictions import Estimate
from vdmkit.sampling import AbstractSampler, Denoise, History

# Adams-Bashforth weights for even steps, by order, of eps_hat now and at the three steps before.
WEIGHTS = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@vdmkit.register("sampler", "ipndm")
class Ipndm(AbstractSampler):
    """DDIM's step along a mixture of the last four eps_hat (Zhang & Chen 2023, arXiv 2204.13902).

    It has order `order` on even steps of sigma / alpha, and at most order 2 on other grids, such as the usual ones of
    sampling, where `lms`, whose weights depend on the steps, has order 4. The first steps use fewer eps_hat; the first
    is Euler's, whose error is small at high noise levels and falls as 1 / steps^2.

    Args:
        order: Number of eps_hat; fewer in the first steps.
    """

    _: KW_ONLY
    order: Annotated[int, Ge(1), Le(4)] = eqx.field(static=True, default=4)
    noise_draws: int = eqx.field(static=True, default=0, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Float[Array, "h w c"],
        gamma_t: Float[Array, ""],
        gamma_s: Float[Array, ""],
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Float[Array, "h w c"], Estimate]:
        estimate = denoise(y_t, gamma_t)
        weights = jnp.asarray(WEIGHTS, float)[jnp.minimum(history.count, self.order - 1)]
        eps = jnp.tensordot(weights, jnp.concatenate([estimate.eps_hat[None], history.eps_hat]), axes=1)
        return y_t + (jnp.exp(gamma_s / 2) - jnp.exp(gamma_t / 2)) * eps, estimate
