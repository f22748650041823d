# SPDX-License-Identifier: Apache-2.0
r"""Where on the gamma axis the draws of the diffusion loss go.

The axis is cut into cells, and the diffusion loss is a sum over them, with L = |eps - eps_hat|^2:

    sum_c rate_c E[L(gamma)],   continuous:  gamma uniform in cell c, rate_c = (its width) / 2
                                T steps:     gamma = gamma_t,         rate_c = expm1(gamma_t - gamma_s) / 2

A draw falls into cell c with probability p_c and counts rate_c / p_c times. Whatever p > 0, its mean is the loss;
p_c ~ rate_c sd_c (Neyman's rule) makes its variance least.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.noise import AbstractSchedule

_CELLS = 128
_PAD = 256
_FINE = 4096
_EVEN_SHARE = 0.1  # of the draws is allocated as if sd were constant, so that a bad pilot costs little


class Cells(eqx.Module):
    """The cells, from gamma_0 upwards; width is 0 for a step, whose gamma is `low`."""

    low: Float[np.ndarray, " c"]
    width: Float[np.ndarray, " c"]
    rate: Float[np.ndarray, " c"]


class Allocation(eqx.Module):
    """Cells and their probabilities, as the ends p_1, p_1 + p_2, ..., 1 of intervals of u."""

    low: Float[Array, " c"]
    width: Float[Array, " c"]
    weight: Float[Array, " c"]
    ends: Float[Array, " c"]

    def __call__(self, u: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """gamma and weight of the draw that u, uniform on [0, 1), stands for."""
        c = jnp.minimum(jnp.searchsorted(self.ends, u, side="right"), len(self.ends) - 1)
        start = jnp.where(c > 0, self.ends[c - 1], 0.0)
        within = (u - start) / (self.ends[c] - start)
        return self.low[c] + self.width[c] * within, self.weight[c]


def cells_of(schedule: AbstractSchedule, steps: int) -> Cells:
    """The cells of the T-step loss; or, for steps = 0, equal ones between the ends of the schedule."""
    if steps:
        gamma = np.asarray(jax.vmap(schedule)(jnp.arange(steps + 1) / steps), np.float64)
        return Cells(gamma[1:], np.zeros(steps), np.expm1(np.diff(gamma)) / 2)
    gamma_0, gamma_1 = (float(schedule(jnp.asarray(t, float))) for t in (0, 1))
    edges = np.linspace(gamma_0, gamma_1, _CELLS + 1)
    return Cells(edges[:-1], np.diff(edges), np.diff(edges) / 2)


def neyman(cells: Cells, sd: Float[np.ndarray, " c"]) -> Allocation:
    """The allocation for standard deviations `sd` of the loss in each cell."""
    share, even = cells.rate * sd, cells.rate / cells.rate.sum()
    share = share / share.sum() if share.sum() > 0 else even
    ends = jnp.asarray(np.cumsum((1 - _EVEN_SHARE) * share + _EVEN_SHARE * even), float).at[-1].set(1.0)
    probability = np.diff(np.asarray(ends, np.float64), prepend=0)  # as rounded: those are the true ones
    low, width, weight = (_padded(a) for a in (cells.low, cells.width, cells.rate / probability))
    return Allocation(low, width, weight, _padded(ends))


def _padded(values: Float[np.ndarray | Array, " c"]) -> Float[Array, " padded"]:
    """The last value again and again, in cells without probability: few numbers of steps are programs of their own."""
    return jnp.pad(jnp.asarray(values, float), (0, -len(values) % _PAD), mode="edge")


def variance_of_strata(
    allocation: Allocation, mean: Float[np.ndarray, " c"], sd: Float[np.ndarray, " c"], strata: int
) -> float:
    """Variance, nats^2, of the mean of draws at u = (U + k) / strata, k = 0, ..., for one uniform U.

    `mean` and `sd` are of the loss in each cell: `sd` makes the part that falls as 1 / strata, and how the weighted
    mean changes with u the part that falls faster.
    """
    width, weight, ends = (
        np.asarray(a, np.float64)[: len(sd)] for a in (allocation.width, allocation.weight, allocation.ends)
    )
    probability = np.diff(ends, prepend=0)
    fine = -(-_FINE // strata)  # values of U
    u = ((np.arange(strata)[:, None] * fine + np.arange(fine) + 0.5) / (strata * fine)).ravel()
    cell = np.minimum(np.searchsorted(ends, u, side="right"), len(ends) - 1)
    smooth = np.interp(u, ends - probability / 2, weight * mean)
    expected = np.where(width[cell] > 0, smooth, (weight * mean)[cell])
    between = expected.reshape(strata, fine).mean(0).var()
    return float((probability * weight**2 * sd**2).sum() / strata + between)
