# SPDX-License-Identifier: Apache-2.0
"""Allocation of the diffusion loss's Monte Carlo draws along gamma.

The range of gamma is divided into cells, and the diffusion loss is a sum over them:

    sum_c rate_c E[L(gamma)],   continuous time:  gamma uniform in cell c, rate_c = (width of the cell) / 2,
                                                  L = |eps - eps_hat|^2
                                T steps:          gamma = gamma_t, rate_c = expm1(gamma_t - gamma_s) / 2,
                                                  L = KL / rate_c, which is |eps - eps_hat|^2 for the paper's kernel

A draw falls into cell c with probability p_c and has the value M + (rate_c / p_c) (L - m_c), with M = sum_c rate_c m_c.
For any p > 0 and any m, its mean is the loss. Choosing m_c near E[L] removes the variance along gamma, and
p_c ~ rate_c sd_c (Neyman allocation) minimises what remains.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.losses.bound import eps_error
from vdmkit.losses.discrete_time import step_loss
from vdmkit.model import DiffusionModel
from vdmkit.process import Image
from vdmkit.reverse import AbstractKernel
from vdmkit.schedules import Scalar


class AbstractLoss(eqx.Module):
    """The random loss L of one image at a given gamma."""

    @abc.abstractmethod
    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        *,
        key: PRNGKeyArray,
    ) -> Scalar:
        """Returns one draw of L, the loss in nats divided by the rate."""


class ContinuousLoss(AbstractLoss):
    """The squared error |eps - eps_hat|^2 of continuous time."""

    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        *,
        key: PRNGKeyArray,
    ) -> Scalar:
        return eps_error(model, x, gamma, eps, {})


class StepLoss(AbstractLoss):
    """The KL of the kernel's step that starts at gamma, divided by the step's rate.

    `gammas` are the increasing gammas of all steps; the given gamma is matched to the nearest one.
    """

    kernel: AbstractKernel
    gammas: Float[Array, " steps_plus_1"]

    def __call__(
        self,
        model: DiffusionModel,
        x: Image,
        gamma: Scalar,
        eps: Image,
        *,
        key: PRNGKeyArray,
    ) -> Scalar:
        i = jnp.maximum(jnp.argmin(jnp.abs(self.gammas - gamma)), 1)
        gamma_t, gamma_s = self.gammas[i], self.gammas[i - 1]
        loss = step_loss(model, self.kernel, x, eps, gamma_t, gamma_s, {}, key=key)
        return loss / (jnp.expm1(gamma_t - gamma_s) / 2)


_CELLS = 128
_PAD = 256
_MANY, _SHIFTS = 256, 16
_EVEN_SHARE = 0.1  # share of draws allocated as if sd were constant, which limits the harm of a poor pilot


class Cells(eqx.Module):
    """Cells in order of increasing gamma; a discrete step is a cell of width 0 at gamma = `low`."""

    low: Float[np.ndarray, " c"]
    width: Float[np.ndarray, " c"]
    rate: Float[np.ndarray, " c"]


class Allocation(eqx.Module):
    """An allocation of draws to cells.

    `weight` holds rate_c / p_c, `mean` holds m_c, and `total` is M. `ends` are the cumulative probabilities
    p_1, p_1 + p_2, ..., 1, which map a uniform u to a cell.
    """

    low: Float[Array, " c"]
    width: Float[Array, " c"]
    weight: Float[Array, " c"]
    mean: Float[Array, " c"]
    ends: Float[Array, " c"]
    total: Scalar

    def __call__(self, u: Scalar) -> tuple[Scalar, Scalar, Scalar]:
        """Returns gamma, the weight rate_c / p_c and m_c of the draw for u, uniform on [0, 1)."""
        c = jnp.minimum(jnp.searchsorted(self.ends, u, side="right"), len(self.ends) - 1)
        start = jnp.where(c > 0, self.ends[c - 1], 0.0)
        within = (u - start) / (self.ends[c] - start)
        return self.low[c] + self.width[c] * within, self.weight[c], self.mean[c]


def cells_between(gamma_0: float, gamma_1: float) -> Cells:
    """Returns cells of equal width for the loss in continuous time."""
    edges = np.linspace(gamma_0, gamma_1, _CELLS + 1)
    return Cells(edges[:-1], np.diff(edges), np.diff(edges) / 2)


def cells_of_steps(gammas: Float[np.ndarray, " steps_plus_1"]) -> Cells:
    """Returns the cells of the T-step loss with these increasing gammas."""
    return Cells(gammas[1:], np.zeros(len(gammas) - 1), np.expm1(np.diff(gammas)) / 2)


def neyman(cells: Cells, sd: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """Returns the cumulative probabilities of Neyman allocation, given the loss's standard deviation in every cell."""
    share, even = cells.rate * sd, (cells.rate / cells.rate.sum() + 1 / len(cells.rate)) / 2
    share = share / share.sum() if share.sum() > 0 else even
    ends = _rounded(np.cumsum((1 - _EVEN_SHARE) * share + _EVEN_SHARE * even))
    ends[-1] = 1.0
    return ends


def allocate(cells: Cells, mean: Float[np.ndarray, " c"], ends: Float[np.ndarray, " c"]) -> Allocation:
    """Returns the allocation with these means m_c and cumulative probabilities."""
    weight = cells.rate / _probability(ends)
    low, width, counts_for, m, padded = (_padded(a) for a in (cells.low, cells.width, weight, mean, ends))
    total = jax.device_put(_rounded((cells.rate * mean).sum()))
    return Allocation(low, width, counts_for, m, padded, total)


def variance_of_draw(cells: Cells, sd: Float[np.ndarray, " c"], ends: Float[np.ndarray, " c"]) -> float:
    """Returns the variance of a draw, nats^2, if every image has the same mean loss in each cell.

    Differences between images add to the variance when there are few draws: see `variance_of_curves`.
    """
    return float(((cells.rate * sd) ** 2 / _probability(ends)).sum())


def variance_of_curves(
    allocation: Allocation, gamma: Float[np.ndarray, " g"], curves: Float[np.ndarray, "2 g n"], strata: int
) -> float:
    """Returns the part of an estimate's variance, nats^2, that comes from each image's own mean loss along gamma.

    Args:
        allocation: Allocation of the draws.
        gamma: Gammas at which the curves were measured.
        curves: Losses of n images at these gammas, in two versions with independent noise, so that the noise does not
            bias their product.
        strata: Number of evenly spaced u that an estimate averages, all shifted by one uniform number.
    """
    if strata > _MANY:  # this many evenly spaced draws integrate smooth curves exactly
        return 0.0
    u = (np.arange(strata)[:, None] + (np.arange(_SHIFTS) + 0.5) / _SHIFTS) / strata
    at, weight, _ = (np.asarray(a, np.float64) for a in jax.vmap(allocation)(jnp.asarray(u.ravel(), float)))
    own = curves - curves.mean((0, 2), keepdims=True)
    places = np.interp(at, gamma, np.arange(len(gamma)))
    left = np.minimum(places.astype(int), len(gamma) - 2)
    share = (places - left)[:, None]
    terms = weight[:, None] * ((1 - share) * own[:, left] + share * own[:, left + 1])
    means = terms.reshape(2, strata, _SHIFTS, -1).mean(1)
    first, second = means - means.mean(1, keepdims=True)
    return max(float((first * second).mean()), 0.0)


def _probability(ends: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """Returns p_c. Differencing the rounded ends gives exactly the probabilities that are sampled from."""
    return np.diff(ends.astype(np.float64), prepend=0)


def _padded(values: Float[np.ndarray, " c"]) -> Float[Array, " padded"]:
    """Pads to a multiple of 256 with cells of probability 0, so that different T share compiled programs."""
    return jax.device_put(np.pad(_rounded(values), (0, -len(values) % _PAD), mode="edge"))


def _rounded(values: Any) -> Float[np.ndarray, "*c"]:
    """Converts to JAX's default float type with NumPy, because JAX would compile a program for each shape."""
    return np.asarray(values, jnp.zeros(()).dtype)
