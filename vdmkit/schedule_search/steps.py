# SPDX-License-Identifier: Apache-2.0
"""Grids of T steps with the least cost: by dynamic programming for any kernel, in closed form for the paper's.

A grid is an increasing array of T + 1 gammas, including both ends.

Predicts bounds of T steps; grids are optimised on training images, and bounds are those of test images.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vdmkit.errors import RecipeError
from vdmkit.likelihood.intervals import interval
from vdmkit.losses.bound import bits_per_dim
from vdmkit.process import UniformInTime
from vdmkit.reverse import OptimalVariance
from vdmkit.schedule_search.measurement import Curve
from vdmkit.schedules import AbstractSchedule


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


_NODES = 1000  # candidate gammas of a grid, for kernels whose costs are known in closed form


@dataclass(frozen=True)
class Predicted:
    """A grid of T steps for a kernel, with its bound in bits/dim and the 95% Monte Carlo half-width."""

    kernel: str
    grid: str
    gammas: tuple[float, ...]
    bpd: float
    half_width: float

    @property
    def count(self) -> int:
        """The number T of steps."""
        return len(self.gammas) - 1


def steps_of(
    kernel: str, grid: str, gammas: Float[np.ndarray, " t"], nats: Float[np.ndarray, "2 n"], d: int
) -> Predicted:
    """Returns the prediction from two estimates of the bound of each image."""
    found = interval(bits_per_dim(nats, d))
    return Predicted(kernel, grid, tuple(gammas.tolist()), found.value, found.half_width_monte_carlo)


def of_gaussian(
    schedule: AbstractSchedule, train: Curve, test: Curve, counts: Iterable[int], d: int
) -> list[Predicted]:
    """Predicts the bounds of the paper's kernel, on four grids for each T."""
    gamma = np.linspace(train.gamma[0], train.gamma[-1], _NODES)
    mean = train.mean(gamma)
    paths = cheapest_paths(costs_of_gaussian(gamma, mean, d), max(counts))
    rows = []
    for count in counts:
        grids = {
            "uniform in t": np.asarray(UniformInTime()(schedule, count), np.float64)[::-1],
            "uniform in gamma": np.linspace(gamma[0], gamma[-1], count + 1),
            "closed form": closed_form(gamma, mean, count),
            "dynamic": gamma[paths[count - 1]],
        }
        for name, gammas in grids.items():
            nats = test.bound(gammas[1:], np.expm1(np.diff(gammas)) / 2)
            rows.append(steps_of("gaussian", name, gammas, nats, d))
    return rows


def of_optimal_variance(
    kernel: OptimalVariance, train: Curve, test: Curve, counts: Iterable[int], d: int
) -> list[Predicted]:
    """Predicts the bounds of the Gaussian kernel with measured variance, on two grids for each T."""
    gamma = np.linspace(train.gamma[0], train.gamma[-1], _NODES)
    paths = cheapest_paths(costs_of_gaussian(gamma, train.mean(gamma), d, optimal_variance=True), max(counts))
    rows = []
    for count in counts:
        grids = {"uniform in gamma": np.linspace(gamma[0], gamma[-1], count + 1), "dynamic": gamma[paths[count - 1]]}
        for name, gammas in grids.items():
            rate = np.expm1(np.diff(gammas))
            u = rate * np.asarray(kernel.error(jnp.asarray(gammas[1:], float)), np.float64)
            nats = test.bound(gammas[1:], rate / (1 + u) / 2) + d / 2 * (np.log1p(u) - u / (1 + u)).sum()
            rows.append(steps_of("optimal_variance", name, gammas, nats, d))
    return rows


def of_pairs(
    kernel: str,
    gamma: Float[np.ndarray, " g"],
    train: Float[np.ndarray, "2 g g n"],
    test: Float[np.ndarray, "2 g g m"],
    ends: Float[np.ndarray, "2 m"],
    counts: Iterable[int],
    d: int,
) -> list[Predicted]:
    """Predicts the bounds of any kernel from its costs between any two gammas.

    It skips every T larger than the number of steps between the measured gammas.
    """
    last = len(gamma) - 1
    paths = cheapest_paths(train.mean((0, 3)), last)
    rows = []
    for count in (count for count in counts if count <= last):
        grids = {"dynamic": paths[count - 1]}
        if last % count == 0:
            grids = {"uniform in gamma": np.arange(0, last + 1, last // count), **grids}
        for name, path in grids.items():
            nats = ends + test[:, path[:-1], path[1:]].sum(1)
            rows.append(steps_of(kernel, name, gamma[path], nats, d))
    return rows
