# SPDX-License-Identifier: Apache-2.0
r"""The diffusion loss of T steps as a sum over all of them, by other code than the `bound` estimator's, for the audit.

With y = x + exp(gamma / 2) eps, and gamma_i at t = i / T (Kingma et al. 2021, arXiv 2107.00630v6, eq. 13 and 14),

    loss = 1/2 E sum_{i=1}^T expm1(gamma_i - gamma_{i-1}) |eps_i - eps_hat(y_i; gamma_i)|^2
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.data import equal_batches
from vdmkit.model import DiffusionModel
from vdmkit.typing import Scalar


def steps_again(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"], steps: int, *, batch_size: int, key: PRNGKeyArray
) -> Float[np.ndarray, "2 n"]:
    """Returns two estimates of each image's diffusion loss, nats, each with one draw of eps for every step."""
    draws = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    x = np.asarray(jax.vmap(model.observation.encode)(jnp.asarray(images)), np.float64)
    gammas = np.asarray(jax.vmap(model.schedule)(jnp.linspace(0, 1, steps + 1)), np.float64)
    nats = np.zeros((2, len(x)))
    for gamma, rate in zip(gammas[1:], np.expm1(np.diff(gammas)), strict=True):
        eps = draws.normal(size=(2, *x.shape))
        y, at = x + np.exp(gamma / 2) * eps, jnp.asarray(gamma, float)
        for replicate, some in itertools.product(range(2), equal_batches(len(x), batch_size)):
            found = _eps_hat(model, jnp.asarray(y[replicate, some], float), at)
            error = eps[replicate, some] - np.asarray(found, np.float64)
            # NumPy adds once for an image that is there again because the last batch is filled up.
            nats[replicate, some] += rate / 2 * (error**2).sum((1, 2, 3))
    return nats


@eqx.filter_jit
def _eps_hat(model: DiffusionModel, y: Float[Array, "b h w c"], gamma: Scalar) -> Float[Array, "b h w c"]:
    return jax.vmap(lambda y: model.estimate(y, gamma).eps_hat)(y)
