# SPDX-License-Identifier: Apache-2.0
r"""Guarded rounding of the network's outputs to integers that another machine reproduces.

The rounded number is v + o / 17, with the first offset o of 0..16 such that no value of the image is within a margin
of halfway between integers. The encoder stores o. A decoder whose v differ by less than the margin rounds to the same
integers (the safeguard of arXiv 2410.09872); without it, about one value in 10^4 would round differently in float32.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vdmkit.errors import CodecError
from vdmkit.model import DiffusionModel
from vdmkit.process import Image
from vdmkit.sampling import denoiser_of
from vdmkit.schedules import Scalar
from vdmkit_codec.compression._mixture_cdf import WEIGHT_BITS
from vdmkit_codec.compression._normal import exact_exp

OFFSETS = 17
MARGIN = 1e-10  # error of eps_hat and x_hat, and half that of log p(x_k | z_t): see `docs/compression.md`
PER_NAT = 64  # log probabilities are rounded to 1/64 nats, which costs 1e-5 nats per value and step
_NATS = 25  # log-probabilities are clipped at this distance below the largest
_EXP = np.rint(exact_exp(-np.arange(_NATS * PER_NAT + 1) / PER_NAT) * 2**30).astype(np.int64)


class Latent(NamedTuple):
    """y_t of an image, with the parameters of guarded rounding.

    Args:
        y: The latent y_t.
        gamma: Its gamma.
        scale: s_t c in parts of the cells of y_s.
        margin: Error of the network's estimates that the rounding tolerates.
        offset: The offset o, 0 .. 16.
    """

    y: Image
    gamma: Scalar
    scale: Scalar
    margin: Scalar
    offset: Int[Array, ""]


Guarded = tuple[Int[Array, "h w c *v"], Bool[Array, ""]]


def guarded_round(v: Float[Array, "*n"], offset: Int[Array, ""], margin: Scalar) -> Guarded:
    """Returns the rounded integers, and whether a change of v by the margin keeps them."""
    v = v.astype(float) + offset / OFFSETS
    clear = jnp.abs(v - jnp.floor(v) - 0.5) >= margin
    return jnp.rint(v).astype(int), clear.all()


def weights(log_probs: Float[Array, "h w c v"], offset: Int[Array, ""], margin: Scalar) -> Guarded:
    """Returns cumulative probabilities of the levels of each value, (h, w, c, V + 1), from 0 to 2^24."""
    below = log_probs.max(-1, keepdims=True) - log_probs
    rounded, clear = guarded_round(jnp.minimum(below, _NATS) * PER_NAT, offset, 2 * margin * PER_NAT)
    total = jnp.cumsum(jnp.asarray(_EXP)[jnp.clip(rounded, 0, len(_EXP) - 1)], axis=-1)
    cumulative = (total << WEIGHT_BITS) // total[..., -1:]
    return jnp.pad(cumulative, [(0, 0)] * 3 + [(1, 0)]).astype(jnp.int32), clear & jnp.isfinite(log_probs.max(-1)).all()


def gaussian_shift(model: DiffusionModel, at: Latent) -> Guarded:
    """Returns the mean of the Gaussian kernel minus y_t, -s_t c eps_hat, in parts; s_t c is `scale` parts."""
    eps_hat = denoiser_of(model)(at.y, at.gamma).eps_hat
    of_x_hat = jnp.maximum(1, jnp.exp(-at.gamma / 2))  # s_t eps_hat = y_t - x_hat has the error of either
    return guarded_round(-at.scale * eps_hat, at.offset, at.margin * at.scale * of_x_hat)


def mixture_weights(model: DiffusionModel, at: Latent) -> Guarded:
    """Returns the weights p(x_k | y_t)."""
    log_probs = denoiser_of(model)(at.y, at.gamma).log_probs
    if log_probs is None:
        raise CodecError("its kernel is the mixture, and this model gives no probabilities of levels")
    return weights(log_probs, at.offset, at.margin)


def level_weights(model: DiffusionModel, at: Latent) -> Guarded:
    """Returns the observation's weights p(x_k | y_0)."""
    log_probs = model.observation.log_probs(at.y, at.gamma, lambda: model.estimate(at.y, at.gamma))
    return weights(log_probs, at.offset, at.margin)
