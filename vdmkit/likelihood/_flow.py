# SPDX-License-Identifier: Apache-2.0
r"""The probability-flow ODE of one image, in gamma (Song et al. 2021, arXiv 2011.13456, section 4.3).

    dz/dgamma = (dlog alpha/dgamma) z + sigma/2 eps_hat(z; gamma)

    log p(z_0) = log p_1(z_1) + int_{gamma_0}^{gamma_1} div dgamma
           div = d dlog alpha/dgamma + sigma/2 div eps_hat

The first part of div is integrated in closed form, d (log alpha_1 - log alpha_0). As in the bound and in sampling,
p_1 = N(0, (alpha_1^2 + sigma_1^2) I), which depends on gamma_1 alone.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vdmkit.integrator import Integrator, State
from vdmkit.likelihood._divergence import value_and_divergence
from vdmkit.model import DiffusionModel
from vdmkit.typing import Image, Scalar


class Transport(eqx.Module):
    """The end z_1 of the flow from z_0, and int div in nats. `calls` counts evaluations of the field."""

    z_1: Image
    volume: Scalar
    calls: Int[Array, ""]
    failed: Bool[Array, ""]


def transport(model: DiffusionModel, z_0: Image, probes: Float[Array, "p h w c"], integrator: Integrator) -> Transport:
    """Solves the flow from gamma_0 to gamma_1, with the same probes of the divergence all the way."""
    gamma_0, gamma_1 = model.schedule(jnp.zeros(())), model.schedule(jnp.ones(()))
    import diffrax  # here, because it takes half a second to load, and training does without it

    start = (z_0, jnp.zeros((), z_0.dtype))
    solution = integrator.solve(_field, gamma_0, gamma_1, start, (model, probes))
    assert solution.ts is not None
    z_1, mean_divergence = jax.tree.map(lambda saved: saved[-1], solution.ys)
    linear = model.path.log_alpha(gamma_1) - model.path.log_alpha(gamma_0)
    finite = jnp.isfinite(z_1).all() & jnp.isfinite(mean_divergence)
    arrived = (solution.result == diffrax.RESULTS.successful) & (solution.ts[-1] == 1)
    calls = integrator.calls(solution.stats["num_steps"])
    return Transport(z_1, z_0.size * (linear + mean_divergence), calls, ~(finite & arrived))


def log_prior(model: DiffusionModel, z_1: Image) -> Scalar:
    """Returns log p_1(z_1) in nats, p_1 = N(0, (alpha_1^2 + sigma_1^2) I)."""
    gamma_1 = model.schedule(jnp.ones(()))
    scale = model.path.scale(gamma_1)
    return -((z_1 / scale) ** 2).sum() / 2 - z_1.size * (jnp.log(2 * jnp.pi) / 2 + jnp.log(scale))


def _field(gamma: Any, state: State, args: tuple[DiffusionModel, Float[Array, "p h w c"]]) -> State:
    (z, _), (model, probes) = state, args
    eps_hat, divergence = value_and_divergence(lambda z: model.denoise(z, gamma, {}).eps_hat, z, probes)
    half_sigma = model.path.sigma(gamma) / 2
    return jax.grad(model.path.log_alpha)(gamma) * z + half_sigma * eps_hat, half_sigma * divergence / z.size
