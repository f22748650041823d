# SPDX-License-Identifier: Apache-2.0
r"""-log P of the probability flow by other formulas and other code than the `ode` estimator's, for the audit.

In y = z / alpha the flow does not depend on the path, and with the estimate x_hat(y; gamma) of the data

    dy/dgamma = (y - x_hat) / 2,        div = (d - tr dx_hat/dy) / 2

    log p(y_0) = log N(y_1; 0, (1 + exp gamma_1) I) + int_{gamma_0}^{gamma_1} div dgamma

It is solved by the classical Runge-Kutta method of order 4 in equal steps of gamma.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.likelihood._estimator import Estimates
from vdmkit.model import DiffusionModel
from vdmkit.noise import ends_of
from vdmkit.typing import Scalar

_STEPS = 64
_NODES, _WEIGHTS = (0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def flow_again(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"], *, batch_size: int, key: PRNGKeyArray
) -> tuple[Estimates, Float[np.ndarray, " n"]]:
    """Returns two estimates of -log P of each image, nats, and by how much half as many steps change the first one."""
    draws = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    y_0, log_q = _dequantised(model, images, draws)
    probes = draws.choice((-1.0, 1.0), y_0.shape)
    solved = [_solved(model, y_0[r], probes[r], _STEPS, batch_size) for r in range(2)]
    prior, volume = (np.stack([one[name] for one in solved]) for name in ("prior", "volume"))
    coarse = _solved(model, y_0[0], probes[0], _STEPS // 2, batch_size)
    change = coarse["prior"] + coarse["volume"] - prior[0] - volume[0]
    calls = np.full(prior.shape, 2 * len(_NODES) * _STEPS)
    failed = ~np.isfinite(prior + volume)
    return Estimates({"prior": prior, "volume": volume, "dequantisation": log_q}, calls, failed), change


def _dequantised(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"], draws: np.random.Generator
) -> tuple[Float[np.ndarray, "2 n h w c"], Float[np.ndarray, "2 n"]]:
    """Returns y_0 = x + exp(gamma_0 / 2) eps, with eps truncated at the edges of the bin, and log q(y_0 | x)."""
    x = np.asarray(jax.vmap(model.observation.encode)(jnp.asarray(images)), np.float64)
    x = np.broadcast_to(x, (2, *x.shape))
    if not model.observation.levels:
        return x, np.zeros(x.shape[:2])
    scale = np.exp(ends_of(model.schedule)[0] / 2)
    edge = float(model.observation.spacing) / 2
    law = scipy.stats.truncnorm(-edge / scale, edge / scale, loc=0, scale=scale)
    offset = law.rvs(x.shape, random_state=draws)
    return x + offset, law.logpdf(offset).sum((2, 3, 4))


def _solved(
    model: DiffusionModel,
    y: Float[np.ndarray, "n h w c"],
    probes: Float[np.ndarray, "n h w c"],
    steps: int,
    batch_size: int,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns -log p_1(y_1) and -int div by so many steps, nats."""
    n, d, (gamma_0, gamma_1) = len(y), y[0].size, ends_of(model.schedule)
    size, h = min(batch_size, n), (gamma_1 - gamma_0) / steps
    y_1, mean_divergence = np.zeros_like(y), np.zeros(n)
    for start in range(0, n, size):
        some = np.resize(np.arange(start, min(start + size, n)), size)
        state = jnp.asarray(y[some], float), jnp.zeros(size)
        for k in range(steps):
            state = _step(model, *state, jnp.asarray(probes[some], float), jnp.asarray(gamma_0 + k * h), jnp.asarray(h))
        y_1[some], mean_divergence[some] = (np.asarray(part, np.float64) for part in state)
    variance = 1 + np.exp(gamma_1)
    prior = (y_1**2).sum((1, 2, 3)) / (2 * variance) + d * np.log(2 * np.pi * variance) / 2
    return {"prior": prior, "volume": -d * mean_divergence}


@eqx.filter_jit
def _step(
    model: DiffusionModel,
    y: Float[Array, "b h w c"],
    volume: Float[Array, " b"],
    probes: Float[Array, "b h w c"],
    gamma: Scalar,
    h: Scalar,
) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
    """Makes one step. A loop over steps outside of JAX keeps convolutions fast on a CPU."""

    def field(y: Array, v: Array, gamma: Scalar) -> tuple[Array, Scalar]:
        x_hat, pull = jax.vjp(lambda y: model.x_hat(y, gamma), y)
        return (y - x_hat) / 2, (1 - (v * pull(v)[0]).mean()) / 2

    slopes, slope = [], (jnp.zeros_like(y), jnp.zeros_like(volume))
    for node in _NODES:
        slope = jax.vmap(field, in_axes=(0, 0, None))(y + node * h * slope[0], probes, gamma + node * h)
        slopes.append(slope)
    move = jax.tree.map(lambda *parts: sum(w * part for w, part in zip(_WEIGHTS, parts, strict=True)), *slopes)
    return y + h * move[0], volume + h * move[1]
