# SPDX-License-Identifier: Apache-2.0
r"""The reverse step p(z_s | z_t), Gaussian at the mean of q(z_s | z_t, x = x_hat), in units of y = z / alpha.

With c = 1 - SNR(t) / SNR(s), q(y_s | y_t, x) has mean y_t - s_t c eps and variance s_s^2 c, where s = exp(gamma / 2).
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Variance = Literal["small", "large"]


def part_of_noise(gamma_t: Float[Array, ""], gamma_s: Float[Array, ""]) -> Float[Array, ""]:
    """c: the share of the noise that a step takes away."""
    return -jnp.expm1(gamma_s - gamma_t)


def step_variance(variance: Variance, gamma_t: Float[Array, ""], gamma_s: Float[Array, ""]) -> Float[Array, ""]:
    """Of p(y_s | y_t). "small" is q's; "large" is beta on the variance preserving path (Ho et al. 2020, section 3.2).

    beta = (e^gamma_t - e^gamma_s) / (1 + e^gamma_t) is the variance of q(z_t | z_s), alpha_s^2 = 1 / (1 + e^gamma_s).
    """
    c = part_of_noise(gamma_t, gamma_s)
    if variance == "small":
        return jnp.exp(gamma_s) * c
    return (1 + jnp.exp(gamma_s)) * c / (1 + jnp.exp(-gamma_t))


def step_kl(
    variance: Variance,
    error: Float[Array, ""],
    dimensions: int,
    gamma_t: Float[Array, ""],
    gamma_s: Float[Array, ""],
) -> Float[Array, ""]:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)) in nats, where error = |eps - eps_hat|^2.

    With the small variance it is expm1(gamma_t - gamma_s) error / 2 (Kingma et al. 2021, eq. 13).
    """
    of_p, of_q = (step_variance(v, gamma_t, gamma_s) for v in (variance, "small"))
    ratio = of_q / of_p
    of_mean = jnp.exp(gamma_t) * part_of_noise(gamma_t, gamma_s) ** 2 / of_p * error
    return 0.5 * (dimensions * (ratio - 1 - jnp.log(ratio)) + of_mean)
