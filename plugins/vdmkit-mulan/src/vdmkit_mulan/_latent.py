# SPDX-License-Identifier: Apache-2.0
"""The latent z: k of m values are 1, chosen by the encoder's logits and noise (Sahoo et al. 2023, code `topk`).

The prior p(z) is uniform over all such z.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from vdmkit.schedules import Scalar

Latent = Float[Array, " m"]
GammaDraws = Float[Array, "10 m"]
"""Draws of Gamma(1/k, 1), ten for each value: see `sum_of_gammas`."""

TERMS = 10
TEMPERATURE = 10.0


def sum_of_gammas(draws: GammaDraws, k: int) -> Latent:
    """Returns 10/k (sum_i i g_i / k - log 10), the noise that is added to logits, as in the authors' code.

    The sum of k such noises would be close to a Gumbel variable if g_i were weighted by k / i (Niepert et al. 2021,
    arXiv 2106.01798); the authors divide by that.
    """
    weights = jnp.arange(1, TERMS + 1, dtype=draws.dtype) / k
    return TEMPERATURE / k * (weights @ draws - jnp.log(jnp.asarray(TERMS, draws.dtype)))


def k_hot(logits: Latent, k: int) -> Latent:
    """Returns 1 for the k largest logits and 0 for the others, with the gradient of the normalised logits.

    The straight-through estimator: centred logits, divided by their norm, take the place of z in the gradient
    (Sahoo et al. 2022, arXiv 2205.15213).
    """
    centred = logits - logits.mean()
    soft = centred / jnp.linalg.norm(centred)
    largest = jax.lax.top_k(centred, k)[1]  # exactly k even with ties; otherwise z would have prior probability 0
    hard = jnp.zeros_like(logits).at[largest].set(1)
    return jax.lax.stop_gradient(hard - soft) + soft


def kl_of_one(logits: Latent, k: int) -> Scalar:
    """Returns the authors' latent term in nats: the KL of one choice by softmax(logits) from a uniform one.

    For k = 1 and Gumbel noise this is KL(q(z | x) || p(z)). For k ones and this noise it is not, and the sum of the
    terms need not bound -log P.
    """
    log_q = jax.nn.log_softmax(logits)
    return (jnp.exp(log_q) * (log_q + jnp.log(jnp.asarray(len(logits), logits.dtype)))).sum()


def largest_kl(logits: Latent, k: int) -> Scalar:
    """Returns log of the number of z, m over k, in nats: KL(q(z | x) || p(z)) is at most this, whatever q is."""
    m, k_ = jnp.asarray(len(logits), logits.dtype), jnp.asarray(k, logits.dtype)
    return gammaln(m + 1) - gammaln(k_ + 1) - gammaln(m - k_ + 1)
