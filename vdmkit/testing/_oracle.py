# SPDX-License-Identifier: Apache-2.0
"""Exact denoisers of synthetic data, on which estimators are checked against a known -log P."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.denoiser import AbstractPrediction, Estimate
from vdmkit.distribution import AbstractDistribution, GaussianMixture, LevelMixture
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.noise import AbstractPath, AbstractSchedule, VariancePreserving
from vdmkit.observation import CategoricalObservation, GaussianObservation
from vdmkit.typing import Image, Scalar

_SD = 0.58


class _Oracle(AbstractPrediction):
    """The exact posterior, with the variances of steps that are exact for standard normal values: the largest ones."""

    distribution: AbstractDistribution = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def __call__(self, output: Float[Array, "h w c 1"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return replace(self.distribution.estimate(z, gamma, path), variance_share=jnp.ones_like(z))


def oracle_of(
    levels: int, shape: tuple[int, int, int], schedule: AbstractSchedule, path: AbstractPath
) -> tuple[DiffusionModel, AbstractDistribution]:
    """Returns data with nearly standard normal values, for which the bound is close to -log P with any ends."""
    values = int(np.prod(shape))
    of_values = {"weights": (1.0,), "means": ((0.0,) * values,), "sds": ((_SD if levels else 1.0,) * values,)}
    if levels:
        distribution, observation = LevelMixture(shape, levels, **of_values), CategoricalObservation(levels)
    else:
        distribution, observation = GaussianMixture(shape, **of_values), GaussianObservation(0)
    parts = {"prediction": _Oracle(distribution), "network": NoNetwork(outputs=1), "observation": observation}
    return DiffusionModel(schedule=schedule, path=path, shape=shape, **parts), distribution


class BentSchedule(AbstractSchedule):
    """gamma_0 + (gamma_1 - gamma_0) (t + bend t (1 - t)), -1 < bend < 1. Its numbers are an array: it compiles once."""

    numbers: Float[Array, "3"]
    gamma_min: float = eqx.field(static=True, default=-1.0)  # of no concern without a network
    gamma_max: float = eqx.field(static=True, default=1.0)

    def __call__(self, t: Scalar) -> Scalar:
        return _bent(self.numbers, t)


@jax.jit  # one program for what would be nine where nothing around it is compiled
def _bent(numbers: Float[Array, "3"], t: Scalar) -> Scalar:
    gamma_0, gamma_1, bend = numbers
    return gamma_0 + (gamma_1 - gamma_0) * (t + bend * t * (1 - t))


class BetweenPaths(AbstractPath):
    """Between the variance-exploding path, at `share` 0, and the variance-preserving one, at 1."""

    share: Float[Array, ""]

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return self.share * VariancePreserving().log_alpha(gamma)


def bent_oracle(
    levels: int, shape: tuple[int, int, int], ends: tuple[float, float], bend: float, share: float
) -> tuple[DiffusionModel, AbstractDistribution]:
    """Returns an oracle whose schedule is bent, on a path between two known ones; all of a shape compile once."""
    schedule = BentSchedule(numbers=jnp.asarray([*ends, bend], float))
    return oracle_of(levels, shape, schedule, BetweenPaths(jnp.asarray(share, float)))
