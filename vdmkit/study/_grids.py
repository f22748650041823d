# SPDX-License-Identifier: Apache-2.0
"""Grids of T steps with the least cost: by dynamic programming for any kernel, in closed form for the paper's.

A grid is an increasing array of T + 1 gammas, including both ends.
"""

import numpy as np
from jaxtyping import Float, Int

from vdmkit.errors import RecipeError


def cheapest_paths(costs: Float[np.ndarray, "n n"], steps: int) -> list[Int[np.ndarray, " t_plus_1"]]:
    """Returns the cheapest path from node 0 to node n - 1 in T increasing steps, for T = 1, ..., `steps`.

    `costs[s, t]` is the cost of the step from t down to s < t; other entries are ignored. O(T n^2), vectorised.

    Raises:
        RecipeError: there are more steps than pairs of neighbouring nodes.
    """
    n = len(costs)
    if steps > n - 1:
        raise RecipeError(f"{steps} steps on {n} nodes: at most {n - 1} fit. Measure at more gammas.")
    into = np.where(np.tri(n, k=-1, dtype=bool), np.asarray(costs, np.float64).T, np.inf)  # [t, s]
    best = np.full(n, np.inf)
    best[0], before, paths = 0.0, [], []
    for _ in range(steps):
        total = into + best
        before.append(total.argmin(1))
        best = total[np.arange(n), before[-1]]
        paths.append(_back(before, n - 1))
    return paths


def _back(before: list[Int[np.ndarray, " n"]], last: int) -> Int[np.ndarray, " t_plus_1"]:
    path = [last]
    for step in reversed(before):
        path.append(int(step[path[-1]]))
    return np.asarray(path[::-1])


def cost_of(costs: Float[np.ndarray, "n n"], path: Int[np.ndarray, " t_plus_1"]) -> float:
    """Returns the sum of the costs of a path's steps."""
    return float(costs[path[:-1], path[1:]].sum())


def costs_of_gaussian(
    gamma: Float[np.ndarray, " n"], mean: Float[np.ndarray, " n"], dimensions: int, *, optimal_variance: bool = False
) -> Float[np.ndarray, "n n"]:
    """Returns E KL of every step of a Gaussian kernel in nats, from M at these gammas: see `vdmkit.reverse`.

    It is expm1(gamma_t - gamma_s) M / 2 with the variance of q, and d / 2 log(1 + expm1(gamma_t - gamma_s) M / d) with
    the optimal variance.
    """
    rate = np.expm1(np.maximum(gamma[None, :] - gamma[:, None], 0.0))
    if optimal_variance:
        return dimensions / 2 * np.log1p(rate * mean / dimensions)
    return rate * mean / 2


def closed_form(
    gamma: Float[np.ndarray, " n"], mean: Float[np.ndarray, " n"], steps: int
) -> Float[np.ndarray, " t_plus_1"]:
    """Returns nodes with density proportional to sqrt(M + dM/dgamma).

    To second order in its width h, a step of the paper's kernel costs h^2 (M + M') / 4 more than continuous time, and
    with w = M + M' the sum of h^2 w is least for h ~ 1 / sqrt(w).
    """
    excess = np.maximum(mean + np.gradient(mean, gamma), 1e-3 * mean)
    panels = np.diff(gamma) * (np.sqrt(excess[:-1]) + np.sqrt(excess[1:])) / 2
    share = np.concatenate([[0.0], np.cumsum(panels)]) / panels.sum()
    return np.interp(np.arange(steps + 1) / steps, share, gamma)
