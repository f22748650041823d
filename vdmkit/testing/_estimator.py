# SPDX-License-Identifier: Apache-2.0
"""Likelihood estimators, on data whose -log P is known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vdmkit.distribution import AbstractDistribution, Exact, GaussianMixture, LevelMixture
from vdmkit.likelihood import AbstractEstimator, Estimates
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.noise import FixedLinear, VariancePreserving
from vdmkit.observation import CategoricalObservation, GaussianObservation
from vdmkit.randomness import fold_purpose
from vdmkit.testing._expect import expect

_SHAPE = (2, 2, 1)
_IMAGES, _COPIES, _KEYS = 64, 2, 8  # few enough images that no pilot is worth its cost
_ENDS = -4.5, 0.0
_SD = 0.58
_SIGMAS = 5
_ROUNDING = 1e-3  # nats of an image
_CORRELATION = _SIGMAS / np.sqrt(_IMAGES * (_KEYS * _COPIES - 1))


def check_estimator(estimator: AbstractEstimator[Any], levels: int) -> None:
    """On the exact denoiser of made-up data: finite terms, independent replicates, and no mean below -log P.

    The data have `levels`, as those of the run do (0: continuous). Each of 64 images is there twice, with numbers of
    its own, so that estimates of one image that differ show their Monte Carlo error.

    Raises:
        ConformanceError: one of these does not hold, or an estimate changes with the other images of its batch.
    """
    model, distribution = _oracle(levels)
    few = distribution.sample(_IMAGES, seed=0)
    images, key = np.repeat(few, _COPIES, axis=0), jax.random.key(5)
    plan = estimator.plan(model, images, precision=0.0, key=fold_purpose(key, "plan"))
    index, failed = np.arange(len(images), dtype=np.int32), []

    def nats(order: np.ndarray, replicate: int, number: int) -> Float[np.ndarray, " n"]:
        given, of_number = (jnp.asarray(images[order]), jnp.asarray(index[order])), jax.random.fold_in(key, number)
        found = estimator(model, *given, plan, replicate=replicate, key=of_number)
        _check_terms(found)
        failed.append(bool(np.asarray(found.failed).any()))
        return np.asarray(found.nats, np.float64)

    nats(index, 0, 0)
    if failed[0]:
        return  # a solver that says so; the measurement itself will
    found = np.stack([[nats(index, replicate, number) for number in range(_KEYS)] for replicate in (0, 1)])
    off = abs(nats(index[::-1], 0, 0)[::-1] - found[0, 0]).max()
    expect(off < 1e-3, f"an estimate changes by up to {off:.3g} nats with the order of the images")
    of_images = found.reshape(2, _KEYS, _IMAGES, _COPIES)
    _check_replicates(of_images)
    _check_above_the_truth(of_images.mean((0, 1, 3)), distribution.nats(few))


def _check_terms(estimates: Estimates) -> None:
    expect(bool(estimates.terms), "it gives no terms")
    for name, values in estimates.terms.items():
        found = np.asarray(values)
        expect(bool(np.isfinite(found).all()), f"its term {name} is not finite")


def _check_replicates(nats: Float[np.ndarray, "2 keys images copies"]) -> None:
    """Deviations from each image's mean are those of chance; a deterministic estimator has none."""
    first, second = nats - nats.mean((1, 3), keepdims=True)
    scale = np.sqrt((first**2).mean() * (second**2).mean())
    if scale < 1e-6 * (1 + abs(nats).mean()):
        return
    expect(nats.std(3).max() > 0, "images of other numbers have the same draws: the error bar would come out too small")
    found = float((first * second).mean() / scale)
    expect(
        found < _CORRELATION,
        f"its two replicates are not independent, with correlation {found:.3f}: the error bar would come out too small",
    )


def _check_above_the_truth(nats: Float[np.ndarray, " images"], exact: Float[np.ndarray, " images"]) -> None:
    """Its mean bounds -log P on average over images that are drawn from P."""
    excess = nats - exact
    error = excess.std(ddof=1) / np.sqrt(len(excess))
    expect(
        excess.mean() > -_SIGMAS * error - _ROUNDING,
        f"on data whose -log P is {exact.mean():.4f} nats an image it gives {nats.mean():.4f}, {-excess.mean():.4f} "
        f"+/- {2 * error:.4f} less: it does not bound -log P",
    )


def _oracle(levels: int) -> tuple[DiffusionModel, AbstractDistribution]:
    """A schedule so short that each of the bound's terms is far larger than what the bound is off -log P."""
    values = int(np.prod(_SHAPE))
    of_values = {"weights": (1.0,), "means": ((0.0,) * values,), "sds": ((_SD if levels else 1.0,) * values,)}
    if levels:
        distribution, observation = LevelMixture(_SHAPE, levels, **of_values), CategoricalObservation(levels)
    else:
        distribution, observation = GaussianMixture(_SHAPE, **of_values), GaussianObservation(0)
    schedule = FixedLinear(gamma_min=_ENDS[0], gamma_max=_ENDS[1])
    parts = schedule, VariancePreserving(), Exact(distribution), NoNetwork(outputs=1), observation
    return DiffusionModel(*parts, _SHAPE), distribution
