# SPDX-License-Identifier: Apache-2.0
"""Checks of samplers, with a denoiser that knows the image."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.denoiser import Estimate
from vdmkit.sampling import AbstractSampler, History, no_history
from vdmkit.testing._compile import compiled_fast
from vdmkit.testing._expect import expect, near
from vdmkit.typing import Image, Scalar

_SHAPE, _CHAINS = (2, 2, 1), 1024
_IMAGE = np.arange(4.0).reshape(_SHAPE) / 4


def check_sampler(sampler: AbstractSampler) -> None:
    """Checks a sampler with a denoiser that knows the image: chains that end at gamma = -inf must return the image.

    After steps of 0.1 in gamma the remaining noise must agree with gamma, within a quarter, because a first-order
    method has an error in each step.

    Raises:
        ConformanceError: a chain does not end at the image, or its noise does not agree with gamma on the way.
    """
    gammas = np.append(np.linspace(3.0, -12.0, 151), -np.inf)
    left = _noise_left(sampler, gammas)
    off = float(abs(left[-1]).max())
    expect(near(left[-1], 0.0, 1e-2), f"the chain ends {off:g} away from the only image")
    for noise, gamma in zip(left[:-1], gammas[1:-1], strict=True):
        times = float(np.sqrt((noise**2).mean()) / np.exp(gamma / 2))
        expect(0.8 < times < 1.25, f"the noise is {times:.3g} times as large as it should be at gamma = {gamma:.1f}")


def _noise_left(sampler: AbstractSampler, gammas: Float[np.ndarray, " n"]) -> list[Float[np.ndarray, "chains 2 2 1"]]:
    """Returns y minus the image after each step of 1,024 chains."""
    dtype, rng = jnp.zeros(()).dtype, np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal((_CHAINS, *shape, *_SHAPE)).astype(dtype)  # noqa: E731
    gammas, left = gammas.astype(dtype, copy=False), []
    y = _IMAGE.astype(dtype) + np.exp(gammas[0] / 2) * draw()
    history = _start(np.full(_CHAINS, len(gammas) - 1, np.int32))
    for gamma_t, gamma_s in pairwise(gammas):
        y, history = _step(sampler, y, history, gamma_t, gamma_s, draw(sampler.noise_draws))
        left.append(np.asarray(y, np.float64) - _IMAGE)
    return left


@compiled_fast
def _start(steps: Any) -> History:
    return jax.vmap(lambda steps: no_history(_SHAPE, steps))(steps)


@compiled_fast
def _step(
    sampler: AbstractSampler, y: Any, history: History, gamma_t: Any, gamma_s: Any, noise: Any
) -> tuple[Array, History]:
    image = jnp.asarray(_IMAGE, float)

    def denoise(y: Image, gamma: Scalar) -> Estimate:
        # the image is known, so that the variance of a step is the least
        return Estimate(image, (y - image) / jnp.exp(gamma / 2), variance_share=jnp.zeros_like(y))

    def one(y: Array, history: History, noise: Array) -> tuple[Array, History]:
        y, estimate = sampler.step(denoise, y, gamma_t, gamma_s, history, noise)
        return y, history.then(estimate, gamma_t)

    return jax.vmap(one)(y, history, noise)
