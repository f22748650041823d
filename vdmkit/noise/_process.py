# SPDX-License-Identifier: Apache-2.0
r"""The Gaussian diffusion process of one example, in gamma (Kingma et al. 2021, arXiv 2107.00630v6).

With (alpha, sigma) of any path, and s < t:

    q(z_t | x)      = N(alpha_t x, sigma_t^2 I)
    q(z_s | z_t, x) = N(alpha_s [(1 - c) z_t / alpha_t + c x], sigma_s^2 c I),   c = 1 - SNR(t) / SNR(s)
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.noise._path import AbstractPath
from vdmkit.typing import Scalar


def diffuse(
    path: AbstractPath, gamma: Scalar, x: Float[Array, "*shape"], eps: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Returns z_t = alpha_t x + sigma_t eps."""
    return path.alpha(gamma) * x + path.sigma(gamma) * eps


def reverse(
    path: AbstractPath,
    gamma_s: Scalar,
    gamma_t: Scalar,
    z_t: Float[Array, "*shape"],
    eps: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Scalar]:
    """Returns mean and standard deviation of q(z_s | z_t, x), where z_t = alpha_t x + sigma_t eps (App. A, eq. 33).

    With eps_hat instead of eps this is the paper's reverse model p(z_s | z_t). The mean is written in eps to avoid
    cancellation at low noise levels.
    """
    c = -jnp.expm1(gamma_s - gamma_t)
    scale = jnp.exp(path.log_alpha(gamma_s) - path.log_alpha(gamma_t))
    return scale * (z_t - path.sigma(gamma_t) * c * eps), path.sigma(gamma_s) * jnp.sqrt(c)
