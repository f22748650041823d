# SPDX-License-Identifier: Apache-2.0
r"""-log P of the probability flow by other formulas and other code than the `ode` estimator's, for the audit.

In y = z / alpha the flow does not depend on the path, and with the estimate x_hat(y; gamma) of the data

    dy/dgamma = (y - x_hat) / 2,        div = (d - tr dx_hat/dy) / 2

    log p(y_0) = log N(y_1; 0, (1 + exp gamma_1) I) + int_{gamma_0}^{gamma_1} div dgamma

It is solved by the classical Runge-Kutta method of order 4 in equal steps of gamma, from the draws of the estimator,
whose law is checked apart.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.data import equal_batches
from vdmkit.likelihood._estimator import Estimates
from vdmkit.likelihood._ode import ProbabilityFlow
from vdmkit.model import DiffusionModel
from vdmkit.noise import ends_of
from vdmkit.typing import Scalar

# Coprime: a network that oscillates with gamma, as one with Fourier features may, deceives 64 and 32 steps alike.
_STEPS, _FEWER = 64, 45
_ROUNDING = 1e-6  # of z_0 and alpha_0 in float32, relative to levels between -1 and 1
_NODES, _WEIGHTS = (0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)


@dataclass(frozen=True)
class FlowAgain:
    """What other code finds for the draws of an `ode` estimator.

    `estimates` are two of -log P of each image, and `change` is by how much fewer steps change the first, nats.
    `surprise` is log q(z_0 | x) minus its expectation, nats: infinite for z_0 outside of the bin, or for continuous
    data that are not z_0 / alpha_0. `probe_excess` is the mean square of the probes' entries, minus 1.
    """

    estimates: Estimates
    change: Float[np.ndarray, " n"]
    surprise: Float[np.ndarray, "2 n"]
    probe_excess: float


def flow_again(
    flow: ProbabilityFlow,
    model: DiffusionModel,
    images: Real[np.ndarray, "n h w c"],
    index: Int[np.ndarray, " n"],
    *,
    batch_size: int,
    key: PRNGKeyArray,
) -> FlowAgain:
    """Solves the flow again from the z_0 that `flow` draws with this key, with the same probe (the first of several).

    From the same draws, two sound codes agree up to the errors of their solvers.
    """
    drawn = [_drawn(flow, model, images, index, replicate, batch_size, key) for replicate in range(2)]
    y_0, probes = (np.stack(both) for both in zip(*drawn, strict=True))
    log_q, expected = _dequantisation(model, images, y_0)
    solved = [_solved(model, y_0[r], probes[r], _STEPS, batch_size) for r in range(2)]
    prior, volume = (np.stack([one[name] for one in solved]) for name in ("prior", "volume"))
    coarse = _solved(model, y_0[0], probes[0], _FEWER, batch_size)
    change = coarse["prior"] + coarse["volume"] - prior[0] - volume[0]
    calls = np.full(prior.shape, 2 * len(_NODES) * _STEPS)
    failed = ~np.isfinite(prior + volume)
    estimates = Estimates({"prior": prior, "volume": volume, "dequantisation": log_q}, calls, failed)
    return FlowAgain(estimates, change, log_q - expected, float((probes**2).mean() - 1))


def _drawn(
    flow: ProbabilityFlow,
    model: DiffusionModel,
    images: Real[np.ndarray, "n h w c"],
    index: Int[np.ndarray, " n"],
    replicate: int,
    batch_size: int,
    key: PRNGKeyArray,
) -> tuple[Float[np.ndarray, "n h w c"], Float[np.ndarray, "n h w c"]]:
    """Returns y_0 = z_0 / alpha_0 and a probe for each image."""
    y_0, probes = np.zeros((2, len(images), *model.shape))
    alpha_0 = float(model.path.alpha(jnp.asarray(ends_of(model.schedule)[0])))
    for some in equal_batches(len(images), batch_size):
        given = jnp.asarray(images[some]), jnp.asarray(index[some].astype(np.int32))
        z_0, v = flow.first_draw(model, *given, replicate=replicate, key=key)
        y_0[some], probes[some] = np.asarray(z_0, np.float64) / alpha_0, np.asarray(v[:, 0])
    return y_0, probes


def _dequantisation(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"], y_0: Float[np.ndarray, "2 n h w c"]
) -> tuple[Float[np.ndarray, "2 n"], float]:
    """Returns log q(y_0 | x) for y_0 = x + exp(gamma_0 / 2) eps, eps truncated at the bin's edges, and its mean."""
    offset = y_0 - np.asarray(jax.vmap(model.observation.encode)(jnp.asarray(images)), np.float64)
    if not model.observation.levels:
        return np.where(abs(offset) > _ROUNDING * np.maximum(abs(y_0), 1), -np.inf, 0).sum((2, 3, 4)), 0.0
    scale = np.exp(ends_of(model.schedule)[0] / 2)
    edge = float(model.observation.spacing) / 2
    law = scipy.stats.truncnorm(-edge / scale, edge / scale, loc=0, scale=scale)
    inside = abs(offset) < edge + _ROUNDING
    log_q = np.where(inside, law.logpdf(np.clip(offset, -edge, edge)), -np.inf)
    return log_q.sum((2, 3, 4)), -y_0[0, 0].size * float(law.entropy())


def _solved(
    model: DiffusionModel,
    y: Float[np.ndarray, "n h w c"],
    probes: Float[np.ndarray, "n h w c"],
    steps: int,
    batch_size: int,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns -log p_1(y_1) and -int div by so many steps, nats."""
    n, d, (gamma_0, gamma_1) = len(y), y[0].size, ends_of(model.schedule)
    h = (gamma_1 - gamma_0) / steps
    y_1, mean_divergence = np.zeros_like(y), np.zeros(n)
    for some in equal_batches(n, batch_size):
        state = jnp.asarray(y[some], float), jnp.zeros(len(some))
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
