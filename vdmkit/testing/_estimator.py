# SPDX-License-Identifier: Apache-2.0
"""Checks of likelihood estimators, on data with known -log P."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vdmkit.distribution import AbstractDistribution, Exact, GaussianMixture, LevelMixture
from vdmkit.likelihood import AbstractEstimator, Estimates
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.noise import LearnedLinear
from vdmkit.observation import CategoricalObservation, GaussianObservation
from vdmkit.testing._compile import fast_key
from vdmkit.testing._expect import expect

_SHAPE = (3, 3, 1)
_IMAGES, _COPIES, _KEYS = 64, 2, 8  # so few images that a pilot does not pay
_ENDS, _FAR_ENDS = (-4.5, 0.0), (-8.0, 5.0)
_SD = 0.58
_SIGMAS = 5
_ROUNDING = 1e-3  # nats per image
_CORRELATION = _SIGMAS / np.sqrt(_IMAGES * (_KEYS * _COPIES - 1))


def check_estimator(
    estimator: AbstractEstimator[Any],
    levels: int,
    shape: tuple[int, int, int] = _SHAPE,
    ends: tuple[float, float] = _FAR_ENDS,
) -> None:
    """Checks an estimator with the exact denoiser of synthetic data: finite terms, independent draws, a valid bound.

    The data have `levels` (0: continuous). Each of 64 images occurs twice, with two indices, so that different
    estimates of one image show the Monte Carlo error. The check uses a schedule so short that every term of a bound is
    large, and one from end to end of `ends`.

    Raises:
        ConformanceError: one of these does not hold, or an estimate changes with the other images of its batch.
    """
    for between in (_ENDS, ends):
        _check_on_oracle(estimator, *_oracle(levels, shape, between))


def _check_on_oracle(
    estimator: AbstractEstimator[Any], model: DiffusionModel, distribution: AbstractDistribution
) -> None:
    few = distribution.sample(_IMAGES, seed=0)
    images = np.repeat(few, _COPIES, axis=0)
    plan = estimator.plan(model, images, precision=0.0, key=fast_key(_KEYS))
    index = np.arange(len(images), dtype=np.int32)

    def estimates(order: np.ndarray, replicate: int, number: int) -> Estimates:
        given = jnp.asarray(images[order]), jnp.asarray(index[order])
        found = estimator(model, *given, plan, replicate=replicate, key=fast_key(number))
        _check_terms(found)
        return found

    if np.asarray(estimates(index, 0, 0).failed).any():
        return  # the solver failed, which the measurement itself will report
    found = np.stack(
        [[np.asarray(estimates(index, r, k).nats, np.float64) for k in range(_KEYS)] for r in (0, 1)],
    )
    off = abs(np.asarray(estimates(index[::-1], 0, 0).nats, np.float64)[::-1] - found[0, 0]).max()
    allowed = _ROUNDING + 1e-4 * abs(found).max()
    expect(off < allowed, f"an estimate changes by up to {off:.3g} nats with the order of the images")
    _check_draws(found.reshape(2, _KEYS, _IMAGES, _COPIES))
    of_images = found.mean((0, 1)).reshape(_IMAGES, _COPIES).mean(1)

    def solver() -> float:
        """Returns the change by a finer solve at 64 images, which is printed beside a number and is in its interval."""
        given = jnp.asarray(images[::_COPIES]), jnp.asarray(index[::_COPIES])
        off = estimator.discretisation_error(model, *given, key=fast_key(0))
        return 0.0 if off is None else abs(float(off[0].mean()))

    _check_above_the_truth(of_images, distribution.nats(few), solver)


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
    scale = np.sqrt((first**2).mean() * (second**2).mean())
    if scale < 1e-6 * (1 + abs(nats).mean()):
        return
    found = float((first * second).mean() / scale)
    expect(
        found < _CORRELATION,
        f"its two replicates are not independent, with correlation {found:.3f}: the error bar would come out too small",
    )
    of_keys = errors.reshape(2 * _KEYS, -1)
    ratio = float(of_keys.mean(1).var() * of_keys.shape[1] / (of_keys**2).mean())
    expect(
        ratio < 1 + _SIGMAS * np.sqrt(2 / (2 * _KEYS - 1)),
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
    missing = -excess.mean() - _SIGMAS * error - _ROUNDING
    expect(
        missing < 0 or missing < 2 * solver(),
        f"on data whose -log P is {exact.mean():.4f} nats an image it gives {nats.mean():.4f}, {-excess.mean():.4f} "
        f"+/- {2 * error:.4f} less: it does not bound -log P",
    )


def _oracle(
    levels: int, shape: tuple[int, int, int], ends: tuple[float, float]
) -> tuple[DiffusionModel, AbstractDistribution]:
    """Returns data with nearly standard normal values, for which the bound is close to -log P with any ends."""
    values = int(np.prod(shape))
    of_values = {"weights": (1.0,), "means": ((0.0,) * values,), "sds": ((_SD if levels else 1.0,) * values,)}
    if levels:
        distribution, observation = LevelMixture(shape, levels, **of_values), CategoricalObservation(levels)
    else:
        distribution, observation = GaussianMixture(shape, **of_values), GaussianObservation(0)
    start, rise = jnp.asarray([ends[0]], float), jnp.asarray([ends[1] - ends[0]], float)
    schedule = LearnedLinear(gamma_min=_ENDS[0], gamma_max=_ENDS[1])  # its parameters compile once for all ends
    schedule = eqx.tree_at(lambda s: (s.w, s.b), schedule, (rise, start))
    parts = {"schedule": schedule, "prediction": Exact(distribution), "network": NoNetwork(outputs=1)}
    return DiffusionModel(**parts, observation=observation, shape=shape), distribution
