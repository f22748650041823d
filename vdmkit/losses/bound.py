# SPDX-License-Identifier: Apache-2.0
"""The variational bound of one image, in nats (Kingma et al. 2021, arXiv 2107.00630v6, sections 3 and 4).

    -log p(x) <= KL(q(z_1 | x) || p(z_1))  -  E log p(x | z_0)  +  diffusion loss

    diffusion loss = 1/2 E_t [ gamma'(t) |eps - eps_hat(z_t; gamma_t)|^2 ]                  continuous time
                   = T/2 E_i [ expm1(gamma_t - gamma_s) |eps - eps_hat(z_t; gamma_t)|^2 ]  T steps, t = i/T, s = t - 1/T

Each function below that takes noise returns a single-draw, unbiased estimate of its term. `bits_per_dim` converts nats
to bits per dimension.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Condition
from vdmkit.predictions import Estimate
from vdmkit.process import Image, diffuse
from vdmkit.schedules import AbstractSchedule, Scalar, gamma_and_derivative


class Bound(eqx.Module):
    """The three terms of the bound, in nats per image, summed over pixels and channels."""

    prior: Float[Array | np.ndarray, "*batch"]
    reconstruction: Float[Array | np.ndarray, "*batch"]
    diffusion: Float[Array | np.ndarray, "*batch"]

    @property
    def total(self) -> Float[Array | np.ndarray, "*batch"]:
        """Returns the bound on -log p(x) in nats per image."""
        return self.prior + self.reconstruction + self.diffusion


class NoiseLevel(eqx.Module):
    """gamma_t, and the rate of the diffusion loss there: gamma'(t), or T expm1(gamma_t - gamma_s).

    `gamma_s` is the noise level at the end of the reverse step; in continuous time it equals gamma_t.
    """

    gamma: Float[Array, "*batch"]
    rate: Float[Array, "*batch"]
    gamma_s: Float[Array, "*batch"]


def prior_loss(model: DiffusionModel, x: Image) -> Scalar:
    """Returns KL(q(z_1 | x) || p(z_1)), where p(z_1) = N(0, (alpha_1^2 + sigma_1^2) I).

    It depends on the schedule and the path through gamma_1 only.
    """
    gamma_1 = model.schedule(jnp.ones(()))
    alpha2 = jax.nn.sigmoid(-gamma_1)
    return 0.5 * (alpha2 * x**2 - alpha2 + jax.nn.softplus(-gamma_1)).sum()


def reconstruction_loss(
    model: DiffusionModel,
    image: Real[Array, "h w c"],
    eps_0: Image,
    through: Callable[[Estimate], Estimate] = lambda estimate: estimate,
) -> Scalar:
    """Returns -log p(x | z_0) at z_0 / alpha_0 = x + exp(gamma_0 / 2) eps_0.

    `through` is applied to the estimate at z_0, for example to stop gradients.
    """
    gamma_0 = model.schedule(jnp.zeros(()))
    z_0 = model.observation.encode(image) + jnp.exp(gamma_0 / 2) * eps_0
    return -model.observation.log_prob(image, z_0, gamma_0, lambda: through(model.estimate(z_0, gamma_0)))


def noise_level(schedule: AbstractSchedule, t: Scalar) -> NoiseLevel:
    """Returns the noise level at t in continuous time."""
    gamma, rate = gamma_and_derivative(schedule, t)
    return NoiseLevel(gamma, rate, gamma)


def diffusion_loss(
    model: DiffusionModel,
    x: Image,
    noise: NoiseLevel,
    eps: Image,
    condition: Condition,
    *,
    key: PRNGKeyArray | None = None,
) -> Scalar:
    """Returns the diffusion loss at one noise level, 1/2 rate |eps - eps_hat|^2. `key` is used for dropout."""
    return 0.5 * noise.rate * eps_error(model, x, noise.gamma, eps, condition, key=key)


def eps_error(
    model: DiffusionModel,
    x: Image,
    gamma: Scalar,
    eps: Image,
    condition: Condition,
    *,
    key: PRNGKeyArray | None = None,
) -> Scalar:
    """Returns |eps - eps_hat(z; gamma)|^2 at the latent z = alpha x + sigma eps. `key` is used for dropout."""
    z = diffuse(model.path, gamma, x, eps)
    return ((eps - model.denoise(z, gamma, condition, key=key).eps_hat) ** 2).sum()


def step_end(t: Float[Array, "*batch"], steps: int) -> Float[Array, "*batch"]:
    """Returns the upper end i/T of the step that contains t in [0, 1); in continuous time (steps = 0), t itself."""
    # ceil(0) = 0 would be the end of a step before the first
    return jnp.maximum(jnp.ceil(t * steps), 1) / steps if steps else t


Nats = TypeVar("Nats")


def bits_per_dim(nats: Nats, dimensions: int) -> Nats:
    """Converts nats per image (a number or an array) to bits per dimension: nats / (d ln 2)."""
    return nats / (dimensions * math.log(2))  # type: ignore[operator]
