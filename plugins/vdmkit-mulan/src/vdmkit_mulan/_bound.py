# SPDX-License-Identifier: Apache-2.0
r"""MuLAN's bound on -log P of one image, in nats (Sahoo et al. 2023, arXiv 2312.13236, section 3 and suppl. 15.1).

    -log p(x) <= E_{q(z | x)} [ KL(q(z_1 | x, z) || p(z_1)) - E log p(x | z_0) + diffusion(z) ] + KL(q(z | x) || p(z))

    diffusion(z) = 1/2 E_t sum_i gamma_i'(z, t) (eps_i - eps_hat_i(z_t; gamma(z, t), z))^2

    q(z_t | x, z) = N(alpha x, diag(sigma^2)),    alpha_i^2 = sigmoid(-gamma_i(z, t)),    sigma_i^2 = 1 - alpha_i^2

gamma is the same at all pixels at t = 0 and at t = 1, so that the first two terms are VDM's. The authors' loss of the
velocity (suppl. 11.1.2), 1/2 E_t sum_i alpha_i^2 gamma_i' (v_i - v_hat_i)^2, equals their loss of the noise (suppl.
11.1.1), because eps - eps_hat = alpha (v - v_hat).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.losses import prior_loss, reconstruction_loss
from vdmkit.process import Image
from vdmkit.schedules import Scalar
from vdmkit_mulan._latent import GammaDraws, Latent, k_hot, largest_kl, sum_of_gammas
from vdmkit_mulan._model import Mulan

LatentTerm = Callable[[Latent, int], Scalar]


class Draws(eqx.Module):
    """The random numbers of an estimate: time, noise of z_t and of z_0, and the Gamma(1/k) draws of the latent."""

    t: Float[Array, "*batch"]
    eps: Float[Array, "*batch h w c"]
    eps_0: Float[Array, "*batch h w c"]
    gammas: Float[Array, "*batch 10 m"]


def draw_latent(
    model: Mulan, x: Image, gammas: GammaDraws, *, key: PRNGKeyArray | None = None
) -> tuple[Latent, Latent]:
    """Returns a draw of q(z | x) with straight-through gradients, and the encoder's logits."""
    logits = model.encoder(x, key=key)
    return k_hot(logits + sum_of_gammas(gammas, model.ones), model.ones), logits


def terms(
    model: Mulan,
    image: Real[Array, "h w c"],
    draws: Draws,
    *,
    latent_term: LatentTerm = largest_kl,
    key: PRNGKeyArray | None = None,
) -> dict[str, Scalar]:
    """Returns one draw of each term of the bound in nats. It is differentiable, and works under `jax.vmap`.

    Args:
        model: The model.
        image: Levels 0..255.
        draws: The random numbers.
        latent_term: `largest_kl`, with which the sum is a bound, or `kl_of_one`, the authors' training term.
        key: Random key of dropout; without a key, dropout is off.
    """
    vdm = model.vdm
    x = vdm.observation.encode(image)
    key_encoder, key_network = (None, None) if key is None else jax.random.split(key)
    z, logits = draw_latent(model, x, draws.gammas, key=key_encoder)
    return {
        "prior": prior_loss(vdm, x),
        "reconstruction": reconstruction_loss(vdm, image, draws.eps_0),
        "latent": latent_term(logits, model.ones),
        "diffusion": diffusion_loss(model, x, z, draws.t, draws.eps, key=key_network),
    }


def diffusion_loss(
    model: Mulan, x: Image, z: Latent, t: Scalar, eps: Image, *, key: PRNGKeyArray | None = None
) -> Scalar:
    """Returns 1/2 sum_i gamma_i'(z, t) (eps_i - eps_hat_i)^2 in nats."""
    gamma = model.schedule(z, t)
    z_t = jnp.sqrt(jax.nn.sigmoid(-gamma)) * x + jnp.sqrt(jax.nn.sigmoid(gamma)) * eps
    error = eps - model.eps_hat(z_t, gamma, z, key=key)
    return 0.5 * (model.schedule.derivative(z, t) * error**2).sum()
