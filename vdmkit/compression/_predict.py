# SPDX-License-Identifier: Apache-2.0
r"""From the network to integers that a second machine finds again: guarded rounding.

What is rounded is v + o / 17 for the first o of 0..16 with which no value of the image lies within a margin of halfway
between integers. The encoder says o. A decoder whose v differ by less than the margin rounds to the same integers
(the safeguard of arXiv 2410.09872); without it, one value in some 10^4 would fall on the other side even in float32.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vdmkit.compression._mixture_law import WEIGHT_BITS
from vdmkit.compression._normal import exact_exp
from vdmkit.model import DiffusionModel

OFFSETS = 17
MARGIN = 1e-10  # of eps_hat, of x_hat and, twice, of log p(x_k | z_t): see `docs/compression.md`
PER_NAT = 256  # log probabilities are rounded to 1/256 nats, which costs 1e-6 nats of a value
_NATS = 25  # a level less probable than this by so much has the weight of one that is
_EXP = np.rint(exact_exp(-np.arange(_NATS * PER_NAT + 1) / PER_NAT) * 2**30).astype(np.int64)

Guarded = tuple[Int[Array, "h w c *v"], Bool[Array, ""]]


def guarded_round(v: Float[Array, "*n"], offset: Int[Array, ""], margin: Float[Array, ""] | float) -> Guarded:
    """The integers, and whether a change of v by the margin would leave them.

    float32 is of a decoder that finds the same v to the last bit: it may lie halfway, as it often does.
    """
    if v.dtype == jnp.float32:
        return jnp.rint(v).astype(int), jnp.ones((), bool)
    v = v.astype(float) + offset / OFFSETS
    clear = jnp.abs(v - jnp.floor(v) - 0.5) > margin
    return jnp.rint(v).astype(int), clear.all()


def weights(log_probs: Float[Array, "h w c v"], offset: Int[Array, ""]) -> Guarded:
    """Cumulative probabilities of the levels of each value, (h, w, c, V + 1), from 0 to 2^24."""
    below = log_probs.max(-1, keepdims=True) - log_probs
    rounded, clear = guarded_round(jnp.minimum(below, _NATS) * PER_NAT, offset, 2 * MARGIN * PER_NAT)
    total = jnp.cumsum(jnp.asarray(_EXP)[jnp.clip(rounded, 0, len(_EXP) - 1)], axis=-1)
    cumulative = (total << WEIGHT_BITS) // total[..., -1:]
    return jnp.pad(cumulative, [(0, 0)] * 3 + [(1, 0)]).astype(jnp.int32), clear & jnp.isfinite(log_probs.max(-1)).all()


def gaussian_shift(
    model: DiffusionModel,
    y: Float[Array, "h w c"],
    gamma: Float[Array, ""],
    scale: Float[Array, ""],
    offset: Int[Array, ""],
) -> Guarded:
    """The mean of the Gaussian kernel less y_t, in parts: -s_t c eps_hat, of which s_t c is `scale` parts."""
    estimate = model.denoise(model.path.alpha(gamma) * y, gamma, {})
    of_x_hat = jnp.maximum(1, jnp.exp(-gamma / 2))  # s_t eps_hat = y_t - x_hat moves with either
    return guarded_round(-scale * estimate.eps_hat, offset, MARGIN * scale * of_x_hat)


def mixture_weights(
    model: DiffusionModel,
    y: Float[Array, "h w c"],
    gamma: Float[Array, ""],
    scale: Float[Array, ""],
    offset: Int[Array, ""],
) -> Guarded:
    """p(x_k | y_t)."""
    estimate = model.denoise(model.path.alpha(gamma) * y, gamma, {})
    assert estimate.log_probs is not None
    return weights(estimate.log_probs, offset)


def level_weights(
    model: DiffusionModel,
    y: Float[Array, "h w c"],
    gamma: Float[Array, ""],
    scale: Float[Array, ""],
    offset: Int[Array, ""],
) -> Guarded:
    """p(x_k | y_0) of the observation."""
    return weights(model.observation.log_probs(y, gamma, lambda: model.x_hat(y, gamma)), offset)
