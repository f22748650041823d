# SPDX-License-Identifier: Apache-2.0
r"""The improved pseudo numerical methods of Zhang & Chen 2023, added to vdmkit from outside.

    y_s = y_t + (s_s - s_t) sum_j w_j eps_hat_j,   s = sigma / alpha,   w of Adams and Bashforth for even steps

On even steps of s this is Adams and Bashforth's method, of the order of the weights. Elsewhere these stay the same: on
a grid s(u), even in u, they give the mean of eps_hat over u in the place of that over s. The two differ by
h^2 / 12 (d eps_hat / du) s'' / s' to leading order, so that the method is of second order, however many the weights.
"""

from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

import vdmkit
from vdmkit.denoiser import Estimate
from vdmkit.sampling import AbstractSampler, Denoise, History

# Adams and Bashforth's, of even steps: by order, for eps_hat now and at the three steps before.
WEIGHTS = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@vdmkit.register("sampler", "ipndm")
class Ipndm(AbstractSampler):
    """DDIM's step along a mixture of the last four eps_hat (Zhang & Chen 2023, arXiv 2204.13902).

    Of order `order` on even steps of sigma / alpha, and of order 2 at most on other grids, such as those of sampling:
    `lms`, whose weights follow the steps, is of order 4 there. The first steps have fewer eps_hat, and Euler's error of
    the very first one, small where the noise is large, falls as 1 / steps^2.

    Args:
        order: How many eps_hat, once there were as many steps.
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
