# SPDX-License-Identifier: Apache-2.0
"""Checks of likelihood estimators on synthetic data with known -log P and an exact denoiser."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from vdmkit.conformance.checking import expect, fast_key
from vdmkit.decoders import CategoricalObservation, GaussianObservation
from vdmkit.likelihood.estimator import AbstractEstimator, Estimates
from vdmkit.model import DiffusionModel
from vdmkit.networks.small import NoNetwork
from vdmkit.predictions import AbstractPrediction, Estimate
from vdmkit.process import AbstractPath, Image, VariancePreserving
from vdmkit.schedules import AbstractSchedule, Scalar
from vdmkit.toy_data import AbstractDistribution, GaussianMixture, LevelMixture

_SD = 0.58


class _Oracle(AbstractPrediction):
    """The exact posterior, with step variances that are exact for standard normal values: the largest ones."""

    distribution: AbstractDistribution = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def __call__(self, output: Float[Array, "h w c 1"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return replace(self.distribution.estimate(z, gamma, path), variance_share=jnp.ones_like(z))


def oracle_of(
    levels: int, shape: tuple[int, int, int], schedule: AbstractSchedule, path: AbstractPath
) -> tuple[DiffusionModel, AbstractDistribution]:
    """Returns data with nearly standard normal values, for which the bound is close to -log P for any gamma range."""
    values = int(np.prod(shape))
    of_values = {"weights": (1.0,), "means": ((0.0,) * values,), "sds": ((_SD if levels else 1.0,) * values,)}
    if levels:
        distribution, observation = LevelMixture(shape, levels, **of_values), CategoricalObservation(levels)
    else:
        distribution, observation = GaussianMixture(shape, **of_values), GaussianObservation(0)
    parts = {"prediction": _Oracle(distribution), "network": NoNetwork(outputs=1), "observation": observation}
    return DiffusionModel(schedule=schedule, path=path, shape=shape, **parts), distribution


class BentSchedule(AbstractSchedule):
    """gamma_0 + (gamma_1 - gamma_0) (t + bend t (1 - t)), -1 < bend < 1.

    The numbers are an array, so that all schedules share one compilation.
    """

    numbers: Float[Array, "3"]
    gamma_min: float = eqx.field(static=True, default=-1.0)  # unused without a network
    gamma_max: float = eqx.field(static=True, default=1.0)

    def __call__(self, t: Scalar) -> Scalar:
        return _bent(self.numbers, t)


@jax.jit  # compiles one program instead of nine when called outside jit
def _bent(numbers: Float[Array, "3"], t: Scalar) -> Scalar:
    gamma_0, gamma_1, bend = numbers
    return gamma_0 + (gamma_1 - gamma_0) * (t + bend * t * (1 - t))


class BetweenPaths(AbstractPath):
    """Interpolates between the variance-exploding path, at `share` 0, and the variance-preserving one, at 1."""

    share: Float[Array, ""]

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return self.share * VariancePreserving().log_alpha(gamma)


def bent_oracle(
    levels: int, shape: tuple[int, int, int], ends: tuple[float, float], bend: float, share: float
) -> tuple[DiffusionModel, AbstractDistribution]:
    """Returns an oracle with a bent schedule on an interpolated path; all oracles of a shape share one compilation."""
    schedule = BentSchedule(numbers=jnp.asarray([*ends, bend], float))
    return oracle_of(levels, shape, schedule, BetweenPaths(jnp.asarray(share, float)))


_SHAPE = (3, 3, 1)
_IMAGES, _KEYS, _COPIES = 64, 8, 2  # too few images for a pilot to pay off
_LONG, _IMAGES_IF_LONG, _KEYS_IF_LONG = 20, 16, 2  # an estimator with so many rounds would take minutes
_FEW, _FEW_KEYS, _FEW_LEVELS = 16, 2, 5  # for large images
_ENDS, _FAR_ENDS = (-4.5, 0.0), (-8.0, 5.0)
_SIGMAS = 5
_ROUNDING = 1e-3  # nats per image
_ROUNDING_OF_SUM = 1e-5  # relative to the nats of an image


def check_estimator(
    estimator: AbstractEstimator[Any],
    levels: int,
    shape: tuple[int, int, int] = _SHAPE,
    ends: tuple[float, float] = _FAR_ENDS,
) -> None:
    """Checks an estimator with the exact denoiser of synthetic data: finite terms, independent draws, a valid bound.

    The data have `levels` (0: continuous). Each of 64 images, or 16 for an estimator of many rounds, occurs twice, with
    two indices, so that the difference of its estimates shows the Monte Carlo error. The check uses one schedule so
    short that every term of a bound is large, and one that spans `ends` on a different path; gamma is not linear in
    time in either.

    Raises:
        ConformanceError: one of these does not hold, or an estimate changes with the other images of its batch.
    """
    _check_on_oracle(estimator, *bent_oracle(levels, shape, _ENDS, bend=0.9, share=1.0))
    _check_on_oracle(estimator, *bent_oracle(levels, shape, ends, bend=-0.9, share=0.4))


def check_estimator_of_model(estimator: AbstractEstimator[Any], model: DiffusionModel) -> None:
    """Checks that an estimator bounds -log P with a model's shape, schedule and path, using an exact denoiser.

    Raises:
        ConformanceError: it does not.
    """
    levels = min(model.observation.levels, _FEW_LEVELS)
    oracle, distribution = oracle_of(levels, model.shape, model.schedule, model.path)
    few, index = distribution.sample(_FEW, seed=0), jax.device_put(np.arange(_FEW, dtype=np.int32))
    plan, given = estimator.plan(oracle, few, precision=0.0, key=fast_key(0)), (jax.device_put(few), index)
    if estimator.rounds(plan) >= _LONG:
        alone = estimator(oracle, given[0][:1], index[:1], plan, replicate=0, key=fast_key(0))
        if np.asarray(alone.failed).any():
            return  # would fail on the other images too, after minutes: levels at low noise are stiff
    found = [estimator(oracle, *given, plan, replicate=r, key=fast_key(k)) for r in (0, 1) for k in range(_FEW_KEYS)]
    for one in found:
        _check_terms(one)
    if not any(np.asarray(one.failed).any() for one in found):
        nats = np.mean([np.asarray(one.nats, np.float64) for one in found], axis=0)
        _check_above_the_truth(nats, distribution.nats(few), _solver(estimator, oracle, few, index))


def _check_on_oracle(
    estimator: AbstractEstimator[Any], model: DiffusionModel, distribution: AbstractDistribution
) -> None:
    few = distribution.sample(_IMAGES, seed=0)
    plan = estimator.plan(model, np.repeat(few, _COPIES, axis=0), precision=0.0, key=fast_key(_KEYS))
    is_long = estimator.rounds(plan) >= _LONG
    keys, few = (_KEYS_IF_LONG, few[:_IMAGES_IF_LONG]) if is_long else (_KEYS, few)
    images = np.repeat(few, _COPIES, axis=0)
    index = np.arange(len(images), dtype=np.int32)

    def estimates(order: np.ndarray, replicate: int, number: int) -> Estimates:
        given = jax.device_put(images[order]), jax.device_put(index[order])
        found = estimator(model, *given, plan, replicate=replicate, key=fast_key(number))
        _check_terms(found)
        return found

    first = estimates(index, 0, 0)
    if np.asarray(first.failed).any():
        return  # the solver failed; the measurement itself reports it
    others = (estimates(index, r, k) for r in (0, 1) for k in range(keys) if (r, k) != (0, 0))
    found = np.stack([np.asarray(one.nats, np.float64) for one in (first, *others)]).reshape(2, keys, len(images))
    off = abs(np.asarray(estimates(index[::-1], 0, 0).nats, np.float64)[::-1] - found[0, 0]).max()
    allowed = _ROUNDING + 1e-4 * abs(found).max()
    expect(off < allowed, f"an estimate changes by up to {off:.3g} nats with the order of the images")
    _check_draws(found.reshape(2, keys, len(few), _COPIES))
    of_images = found.mean((0, 1)).reshape(len(few), _COPIES).mean(1)
    solver = _solver(estimator, model, few, jax.device_put(index[::_COPIES]))
    _check_above_the_truth(of_images, distribution.nats(few), solver)


def _solver(
    estimator: AbstractEstimator[Any], model: DiffusionModel, images: Real[np.ndarray, "n h w c"], index: Array
) -> Callable[[], float]:
    """Returns a function that computes the change by a finer solve, which reports include in their interval."""

    def solver() -> float:
        off = estimator.discretisation_error(model, jax.device_put(images), index, key=fast_key(0))
        return 0.0 if off is None else abs(float(off[0].mean()))

    return solver


def _check_terms(estimates: Estimates) -> None:
    expect(bool(estimates.terms), "it gives no terms")
    for name, values in estimates.terms.items():
        found = np.asarray(values)
        expect(bool(np.isfinite(found).all()), f"its term {name} is not finite")


def _check_draws(nats: Float[np.ndarray, "2 keys images copies"]) -> None:
    """Checks that deviations from each image's mean are independent between replicates and images.

    The mean over images for a key then has the variance of one image's estimate divided by the number of images, to 5
    standard errors of a variance from this number of keys. A deterministic estimator has no deviations.
    """
    first, second = errors = nats - nats.mean((1, 3), keepdims=True)
    _, keys, images, copies = nats.shape
    scale = np.sqrt((first**2).mean() * (second**2).mean())
    if scale < 1e-6 * (1 + abs(nats).mean()):
        return
    found = float((first * second).mean() / scale)
    expect(
        found < _SIGMAS / np.sqrt(images * (keys * copies - 1)),
        f"its two replicates are not independent, with correlation {found:.3f}: the error bar would come out too small",
    )
    of_keys = errors.reshape(2 * keys, -1)
    ratio = float(of_keys.mean(1).var() * of_keys.shape[1] / (of_keys**2).mean())
    expect(
        ratio < 1 + _SIGMAS * np.sqrt(2 / (2 * keys - 1)),
        f"images share their draws: the error of their mean is {np.sqrt(ratio):.3g} times what independent ones give",
    )


def _check_above_the_truth(
    nats: Float[np.ndarray, " images"], exact: Float[np.ndarray, " images"], solver: Callable[[], float]
) -> None:
    """Checks that the mean bounds -log P on average over images drawn from P.

    A violation is accepted if a finer solve removes at least half of it, because the solver is then too coarse for the
    ends of the schedule.
    """
    excess = nats - exact
    error = excess.std(ddof=1) / np.sqrt(len(excess))
    missing = -excess.mean() - _SIGMAS * error - _ROUNDING - _ROUNDING_OF_SUM * abs(exact.mean())
    expect(
        missing < 0 or missing < 2 * solver(),
        f"on data whose -log P is {exact.mean():.4f} nats an image it gives {nats.mean():.4f}, {-excess.mean():.4f} "
        f"+/- {2 * error:.4f} less: it does not bound -log P",
    )
