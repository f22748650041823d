# SPDX-License-Identifier: Apache-2.0
r"""The variational bound of one image, in nats (Kingma et al. 2021, arXiv 2107.00630v6, sections 3 and 4).

    -log p(x) <= KL(q(z_1 | x) || p(z_1))  -  E log p(x | z_0)  +  diffusion loss

    diffusion loss = 1/2 E_t [ gamma'(t) |eps - eps_hat(z_t; gamma_t)|^2 ]                  continuous time
                   = T/2 E_i [ expm1(gamma_t - gamma_s) |eps - eps_hat(z_t; gamma_t)|^2 ]  T steps, t = i/T, s = t - 1/T

Each function below is a single draw, unbiased for its term.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.model import DiffusionModel
from vdmkit.networks import Condition
from vdmkit.noise import diffuse, gamma_and_derivative


class Bound(eqx.Module):
    """The three terms of the bound, in nats per image, summed over pixels and channels."""

    prior: Float[Array | np.ndarray, "*batch"]
    reconstruction: Float[Array | np.ndarray, "*batch"]
    diffusion: Float[Array | np.ndarray, "*batch"]

    @property
    def total(self) -> Float[Array | np.ndarray, "*batch"]:
        """The bound on -log p(x), nats per image."""
        return self.prior + self.reconstruction + self.diffusion


def prior_loss(model: DiffusionModel, x: Float[Array, "h w c"]) -> Float[Array, ""]:
    """KL(q(z_1 | x) || p(z_1)). p(z_1) = N(0, (alpha_1^2 + sigma_1^2) I), so that only gamma_1 matters."""
    gamma_1 = model.schedule(jnp.ones(()))
    alpha2 = jax.nn.sigmoid(-gamma_1)
    return 0.5 * (alpha2 * x**2 - alpha2 + jax.nn.softplus(-gamma_1)).sum()


def reconstruction_loss(
    model: DiffusionModel, image: Real[Array, "h w c"], eps_0: Float[Array, "h w c"]
) -> Float[Array, ""]:
    """-log p(x | z_0) at z_0 / alpha_0 = x + exp(gamma_0 / 2) eps_0."""
    gamma_0 = model.schedule(jnp.zeros(()))
    z_0 = model.observation.encode(image) + jnp.exp(gamma_0 / 2) * eps_0
    return -model.observation.log_prob(image, z_0, gamma_0, lambda: model.x_hat(z_0, gamma_0))


def diffusion_loss(
    model: DiffusionModel,
    x: Float[Array, "h w c"],
    t: Float[Array, ""],
    eps: Float[Array, "h w c"],
    condition: Condition,
    *,
    steps: int,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The diffusion loss at one time, gamma_t, and gamma' or T expm1(gamma_t - gamma_s).

    steps = 0 is continuous time. `key` drives dropout.

    With steps = T > 0, t is one of 1/T, 2/T, ..., 1: see `step_end`.
    """
    if steps == 0:
        gamma_t, rate = gamma_and_derivative(model.schedule, t)
    else:
        gamma_t = model.schedule(t)
        rate = steps * jnp.expm1(gamma_t - model.schedule(t - 1 / steps))
    return 0.5 * rate * eps_error(model, x, gamma_t, eps, condition, key=key), gamma_t, rate


def eps_error(
    model: DiffusionModel,
    x: Float[Array, "h w c"],
    gamma: Float[Array, ""],
    eps: Float[Array, "h w c"],
    condition: Condition,
    *,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """|eps - eps_hat(z; gamma)|^2 of the latent z = alpha x + sigma eps. `key` drives dropout."""
    z = diffuse(model.path, gamma, x, eps)
    return ((eps - model.denoise(z, gamma, condition, key=key).eps_hat) ** 2).sum()


def step_end(t: Float[Array, "*batch"], steps: int) -> Float[Array, "*batch"]:
    """The end i/T of the step that t in [0, 1) lies in; t itself in continuous time (steps = 0)."""
    # ceil(0) would give the step before the first
    return jnp.maximum(jnp.ceil(t * steps), 1) / steps if steps else t
