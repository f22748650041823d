# SPDX-License-Identifier: Apache-2.0
"""Checks of weightings and time samplers of the training loss."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.objective import AbstractTimeSampler, AbstractWeighting
from vdmkit.testing._compile import compiled_fast
from vdmkit.testing._expect import expect
from vdmkit.testing._noise import GAMMAS

_DRAWS, _BATCH, _PARTS = 400, 64, 10
_ROUNDING = 1e-6


def check_weighting(weighting: AbstractWeighting, gammas: tuple[float, ...] = GAMMAS) -> None:
    """Checks that w is finite and w >= 0.

    Raises:
        ConformanceError: the check fails at one of `gammas`.
    """
    for gamma, weight in zip(gammas, np.asarray(_weights(weighting, jnp.asarray(gammas, float))), strict=True):
        expect(0 <= weight < np.inf, f"w = {weight:g} at gamma = {gamma:g}")


@compiled_fast
def _weights(weighting: AbstractWeighting, gammas: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.vmap(lambda gamma: weighting(gamma, jnp.asarray(10.0, gamma.dtype)))(gammas)


def check_time_sampler(sampler: AbstractTimeSampler) -> None:
    """Checks that times lie in [0, 1) and that weighted means of 1, t and t^2 are unbiased.

    The tolerance is 5 standard errors of 400 draws. The check is repeated after uneven losses, because a sampler that
    learns must stay unbiased.

    Raises:
        ConformanceError: a time is outside of [0, 1), or a mean is biased.
    """
    _check_unbiased(sampler)
    t = _draws(sampler, jax.random.key(1))[0][0]
    for _ in range(3):
        sampler = sampler.after(t, 1 + 100 * t**4)
    _check_unbiased(sampler)


def _check_unbiased(sampler: AbstractTimeSampler) -> None:
    t, weight = (np.asarray(part, np.float64) for part in _draws(sampler, jax.random.key(0)))
    expect(bool((t >= 0).all() and (t < 1).all()), f"times from {t.min():g} to {t.max():g}: expected [0, 1)")
    expect(bool((weight >= 0).all()), f"a weight is {weight.min():g}: expected 0 or more")
    _check_spread(t, weight)
    midpoints = 1 / (12 * len(np.unique(t)) ** 2)  # error of the midpoint rule for the mean of t^2
    for power in range(3):
        means = (weight * t**power).mean(1)
        off = abs(means.mean() - 1 / (power + 1))
        limit = 5 * means.std() / np.sqrt(len(means)) + midpoints + _ROUNDING
        expect(off < limit, f"the weighted mean of t^{power} is {means.mean():g}: expected {1 / (power + 1):g}")


def _check_spread(t: Float[np.ndarray, "draws n"], weight: Float[np.ndarray, "draws n"]) -> None:
    """Checks that every part of [0, 1] has its share; few distinct times must be the midpoints of equal parts."""
    distinct = np.unique(t)
    if len(distinct) < _PARTS**2:
        midpoints = (np.arange(len(distinct)) + 0.5) / len(distinct)
        off = abs(distinct - midpoints).max()
        expect(off < 1e-5, f"only {len(distinct)} times are drawn, {off:.3g} off the midpoints of equal parts")
        return
    shares = np.stack([(weight * ((t * _PARTS).astype(int) == part)).mean(1) for part in range(_PARTS)])
    off = abs(shares.mean(1) - 1 / _PARTS)
    limit = 5 * shares.std(1) / np.sqrt(shares.shape[1]) + 1e-2 / _PARTS
    worst = int((off / limit).argmax())
    expect(
        off[worst] < limit[worst],
        f"the weighted share of times from {worst / _PARTS:g} to {(worst + 1) / _PARTS:g} is "
        f"{shares[worst].mean():.4g}: expected {1 / _PARTS:g}",
    )


@compiled_fast
def _draws(sampler: AbstractTimeSampler, key: PRNGKeyArray) -> tuple[Float[Array, "draws n"], Float[Array, "draws n"]]:
    return jax.vmap(lambda key: sampler(_BATCH, key=key))(jax.random.split(key, _DRAWS))
