# SPDX-License-Identifier: Apache-2.0
r"""Dequantization: z_0 is drawn in the bin of the image's levels, with log q(z_0 | x) in nats.

The bins, of width alpha_0 w around alpha_0 x, tile the axis; w is the spacing of levels, 2 / V. So
P(x) = int p(z_0) dz_0 over the image's bin, and log P(x) >= E_q[log p(z_0) - log q(z_0 | x)] for any q on the bin.
Continuous data are not dequantized.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, Real

from vdmkit.model import DiffusionModel
from vdmkit.typing import Image, Scalar


def uniform(model: DiffusionModel, image: Real[Array, "h w c"], key: PRNGKeyArray) -> tuple[Image, Scalar]:
    """Draws z_0 uniformly in the bin: log q = -d log(alpha_0 w) (Theis et al. 2016, arXiv 1511.01844)."""
    x, width = model.observation.encode(image), model.observation.spacing
    log_alpha = model.path.log_alpha(model.schedule(jnp.zeros(())))
    u = jax.random.uniform(key, x.shape, x.dtype)
    return jnp.exp(log_alpha) * (x + width * (u - 0.5)), -x.size * (jnp.log(width) + log_alpha)


def truncated_normal(model: DiffusionModel, image: Real[Array, "h w c"], key: PRNGKeyArray) -> tuple[Image, Scalar]:
    r"""Draws z_0 = alpha_0 x + sigma_0 eps, as in training, with eps ~ N(0, 1) truncated at the edges +-tau of the bin.

    tau = alpha_0 w / (2 sigma_0) = exp(-gamma_0 / 2) w / 2; with Z = erf(tau / sqrt 2),
    log q = -sum eps^2 / 2 - d log(sqrt(2 pi) sigma_0 Z) (Zheng et al. 2023, arXiv 2305.03935).
    """
    x = model.observation.encode(image)
    gamma_0 = model.schedule(jnp.zeros(()))
    tau = jnp.exp(-gamma_0 / 2) * model.observation.spacing / 2
    eps, log_density = _truncated_normal(tau, x, key)
    log_sigma = model.path.log_alpha(gamma_0) + gamma_0 / 2
    return model.path.alpha(gamma_0) * x + jnp.exp(log_sigma) * eps, log_density - x.size * log_sigma


def _truncated_normal(tau: Array, like: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
    """Draws eps = sqrt(2) erfinv(u Z), u ~ U(-1, 1), and returns it with its log density summed over pixels.

    Centred at 0, u Z keeps its digits in a narrow bin. u = -1 is excluded, because in a wide bin, where Z rounds to 1,
    eps would be infinite.
    """
    mass = jax.lax.erf(tau / jnp.sqrt(2.0))
    lowest = jnp.nextafter(jnp.asarray(-1, like.dtype), jnp.asarray(0, like.dtype))
    u = jax.random.uniform(key, like.shape, like.dtype, minval=lowest, maxval=1)
    eps = jnp.clip(jnp.sqrt(2.0) * jax.lax.erf_inv(u * mass), -tau, tau)
    return eps, -(eps**2).sum() / 2 - like.size * (jnp.log(2 * jnp.pi) / 2 + jnp.log(mass))


def none(model: DiffusionModel, image: Real[Array, "h w c"], key: PRNGKeyArray) -> tuple[Image, Scalar]:
    """Returns z_0 = alpha_0 x for continuous data of density p(z_0) alpha_0^d (Song et al. 2021, arXiv 2011.13456)."""
    x = model.observation.encode(image)
    log_alpha = model.path.log_alpha(model.schedule(jnp.zeros(())))
    return jnp.exp(log_alpha) * x, -x.size * log_alpha


DEQUANTISATIONS = {"uniform": uniform, "truncated_normal": truncated_normal, "none": none}
