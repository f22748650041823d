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

from vdmkit.integrator import Integrator, Stand, State
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
    begun = set_out(model, z_0, probes, integrator)
    return arrival(model, travel(model, begun, probes, integrator, integrator.most_steps), integrator)


def set_out(model: DiffusionModel, z_0: Image, probes: Float[Array, "p h w c"], integrator: Integrator) -> Stand:
    """Returns the stand of the flow at gamma_0."""
    return integrator.begin(_field, *_ends(model), (z_0, jnp.zeros((), z_0.dtype)), (model, probes))


def travel(
    model: DiffusionModel, stand: Stand, probes: Float[Array, "p h w c"], integrator: Integrator, steps: int
) -> Stand:
    """Makes at most so many more steps of the solver."""
    return integrator.go_on(_field, *_ends(model), stand, (model, probes), steps=steps)


def arrival(model: DiffusionModel, stand: Stand, integrator: Integrator) -> Transport:
    """Returns the end of the flow; it has failed if the solver is elsewhere, or a value is not finite."""
    z_1, mean_divergence = stand.state
    gamma_0, gamma_1 = _ends(model)
    linear = model.path.log_alpha(gamma_1) - model.path.log_alpha(gamma_0)
    finite = jnp.isfinite(z_1).all() & jnp.isfinite(mean_divergence)
    volume = z_1.size * (linear + mean_divergence)
    return Transport(z_1, volume, integrator.calls(stand.steps), ~(finite & stand.arrived))


def _ends(model: DiffusionModel) -> tuple[Scalar, Scalar]:
    return model.schedule(jnp.zeros(())), model.schedule(jnp.ones(()))


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
