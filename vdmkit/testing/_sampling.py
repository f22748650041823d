# SPDX-License-Identifier: Apache-2.0
"""Samplers, on a denoiser that knows the image."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser import Estimate
from vdmkit.randomness import fold_purpose
from vdmkit.sampling import AbstractSampler, History, no_history
from vdmkit.testing._expect import expect, near

_SHAPE, _CHAINS = (2, 2, 1), 1024


def check_sampler(sampler: AbstractSampler) -> None:
    """With a denoiser that knows the image, chains that end at gamma = -inf give it, whatever the noise.

    After steps of 0.1 in gamma what is left of the noise is as large as gamma says. A quarter more or less is allowed:
    a method of first order is off by a part of each step.

    Raises:
        ConformanceError: a chain ends elsewhere, or has more or less noise than its gamma says on the way.
    """
    gammas = np.append(np.linspace(3.0, -12.0, 151), -np.inf)
    left = _noise_left(sampler, gammas)
    off = float(abs(left[-1]).max())
    expect(near(left[-1], 0.0, 1e-2), f"the chain ends {off:g} away from the only image")
    for noise, gamma in zip(left[:-1], gammas[1:-1], strict=True):
        times = float(np.sqrt((noise**2).mean()) / np.exp(gamma / 2))
        expect(0.8 < times < 1.25, f"the noise is {times:.3g} times as large as it should be at gamma = {gamma:.1f}")


def _noise_left(sampler: AbstractSampler, gammas: Float[np.ndarray, " n"]) -> list[Float[np.ndarray, "chains 2 2 1"]]:
    """y minus the image after each step of 1,024 chains."""
    gammas, key = gammas.astype(jnp.zeros(()).dtype, copy=False), jax.random.key(0)
    chain, left = _start(gammas[:1], np.asarray(len(gammas) - 1), key), []
    image = np.asarray(_image(), np.float64)
    for i in range(len(gammas) - 1):
        chain = _step(sampler, chain, key, gammas[i], gammas[i + 1])
        left.append(np.asarray(chain[0], np.float64) - image)
    return left


def _image() -> Float[Array, "2 2 1"]:
    return jnp.arange(4.0).reshape(_SHAPE) / 4


@jax.jit
def _start(gamma_1: Any, steps: Any, key: PRNGKeyArray) -> tuple[Array, History]:
    y = _image() + jnp.exp(gamma_1 / 2) * jax.random.normal(fold_purpose(key, "start"), (_CHAINS, *_SHAPE))
    return y, jax.vmap(lambda _: no_history(_SHAPE, steps))(y)


@eqx.filter_jit
def _step(
    sampler: AbstractSampler, chain: tuple[Array, History], key: PRNGKeyArray, gamma_t: Any, gamma_s: Any
) -> tuple[Array, History]:
    image = _image()

    def denoise(y: Float[Array, "h w c"], gamma: Float[Array, ""]) -> Estimate:
        return Estimate(image, (y - image) / jnp.exp(gamma / 2))

    def one(y: Array, history: History, noise: Array) -> tuple[Array, History]:
        y, estimate = sampler.step(denoise, y, gamma_t, gamma_s, history, noise)
        return y, history.then(estimate, gamma_t)

    of_step = jax.random.fold_in(key, chain[1].count[0])
    return jax.vmap(one)(*chain, jax.random.normal(of_step, (_CHAINS, sampler.noise_draws, *_SHAPE)))
