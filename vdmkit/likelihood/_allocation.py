# SPDX-License-Identifier: Apache-2.0
r"""Where on the gamma axis the draws of the diffusion loss go.

The axis is cut into cells, and the diffusion loss is a sum over them, with L = |eps - eps_hat|^2:

    sum_c rate_c E[L(gamma)],   continuous:  gamma uniform in cell c, rate_c = (its width) / 2
                                T steps:     gamma = gamma_t,         rate_c = expm1(gamma_t - gamma_s) / 2

A draw falls into cell c with probability p_c and counts as M + (rate_c / p_c) (L - m_c), with M = sum_c rate_c m_c.
Whatever p > 0 and m, its mean is the loss; m_c near E[L] takes away what varies with gamma alone, and
p_c ~ rate_c sd_c (Neyman's rule) makes least what is left.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_CELLS = 128
_PAD = 256
_MANY, _SHIFTS = 256, 16
_EVEN_SHARE = 0.1  # of the draws is allocated as if sd were constant, so that a bad pilot costs little


class Cells(eqx.Module):
    """The cells, from gamma_0 upwards; width is 0 for a step, whose gamma is `low`."""

    low: Float[np.ndarray, " c"]
    width: Float[np.ndarray, " c"]
    rate: Float[np.ndarray, " c"]


class Allocation(eqx.Module):
    """Cells with their weights rate_c / p_c and m_c, M, and the ends p_1, p_1 + p_2, ..., 1 of intervals of u."""

    low: Float[Array, " c"]
    width: Float[Array, " c"]
    weight: Float[Array, " c"]
    mean: Float[Array, " c"]
    ends: Float[Array, " c"]
    total: Float[Array, ""]

    def __call__(self, u: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        """gamma, weight and m of the draw that u, uniform on [0, 1), stands for."""
        c = jnp.minimum(jnp.searchsorted(self.ends, u, side="right"), len(self.ends) - 1)
        start = jnp.where(c > 0, self.ends[c - 1], 0.0)
        within = (u - start) / (self.ends[c] - start)
        return self.low[c] + self.width[c] * within, self.weight[c], self.mean[c]


def cells_between(gamma_0: float, gamma_1: float) -> Cells:
    """Equal cells, of the loss in continuous time."""
    edges = np.linspace(gamma_0, gamma_1, _CELLS + 1)
    return Cells(edges[:-1], np.diff(edges), np.diff(edges) / 2)


def cells_of_steps(gammas: Float[np.ndarray, " steps_plus_1"]) -> Cells:
    """The cells of the T-step loss, whose gammas rise."""
    return Cells(gammas[1:], np.zeros(len(gammas) - 1), np.expm1(np.diff(gammas)) / 2)


def neyman(cells: Cells, mean: Float[np.ndarray, " c"], sd: Float[np.ndarray, " c"]) -> tuple[Allocation, float]:
    """The allocation for means and standard deviations of the loss in each cell, and the variance of one draw, nats^2.

    For such means; those of one image differ, which adds to the variance of few draws: see `variance_of_curves`.
    """
    share, even = cells.rate * sd, (cells.rate / cells.rate.sum() + 1 / len(cells.rate)) / 2
    share = share / share.sum() if share.sum() > 0 else even
    ends = jnp.asarray(np.cumsum((1 - _EVEN_SHARE) * share + _EVEN_SHARE * even), float).at[-1].set(1.0)
    probability = np.diff(np.asarray(ends, np.float64), prepend=0)  # as rounded: those are the true ones
    weight = cells.rate / probability
    low, width, counts_for, m, ends = (_padded(a) for a in (cells.low, cells.width, weight, mean, ends))
    total = jnp.asarray((cells.rate * mean).sum(), float)
    return Allocation(low, width, counts_for, m, ends, total), float((probability * weight**2 * sd**2).sum())


def variance_of_curves(
    allocation: Allocation, gamma: Float[np.ndarray, " g"], curves: Float[np.ndarray, "2 g n"], strata: int
) -> float:
    """What images' own means of the loss along gamma add to the variance of one estimate of one image, nats^2.

    An estimate averages `strata` evenly spaced u behind one uniform draw. Of the mean curves of n images two noisy
    versions are given, with independent noise, which their product leaves out.
    """
    if strata > _MANY:  # evenly spaced, so many leave nothing of smooth curves
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


def _padded(values: Float[np.ndarray | Array, " c"]) -> Float[Array, " padded"]:
    """The last value again and again, in cells without probability: few numbers of steps are programs of their own."""
    return jnp.pad(jnp.asarray(values, float), (0, -len(values) % _PAD), mode="edge")
