# SPDX-License-Identifier: Apache-2.0
"""Predicts bounds of T steps; grids are optimised on training images, and bounds are those of test images."""

from collections.abc import Iterable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vdmkit.likelihood.intervals import interval
from vdmkit.losses.bound import bits_per_dim
from vdmkit.process import UniformInTime
from vdmkit.reverse import OptimalVariance
from vdmkit.schedules import AbstractSchedule
from vdmkit.study._curve import Curve
from vdmkit.study._grids import cheapest_paths, closed_form, costs_of_gaussian

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
