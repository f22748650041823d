# SPDX-License-Identifier: Apache-2.0
"""Checks that a reverse kernel's density, samples and distribution function belong to one distribution."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vdmkit.denoiser import Estimate
from vdmkit.kernel import AbstractKernel
from vdmkit.testing._compile import compiled_fast
from vdmkit.testing._expect import expect, in_float64
from vdmkit.testing._kernel_of_image import Given, check_image

_VALUES = 48  # values of an image whose density is checked on a grid; all others are compared with them
_GRID, _SAMPLES = 2001, 400
_EXCESS = 1e-7  # of a density's integral over 1; a bound of T steps adds up T of them


def check_kernel(
    kernel: AbstractKernel,
    estimate: Estimate,
    x: Float[Any, "h w c"],
    eps: Float[Any, "h w c"],
    gamma_t: Float[Any, ""],
    gamma_s: Float[Any, ""],
) -> None:
    """Checks a kernel's step: its density, samples, `cdf`, `kl` and `log_ratio`.

    p(y_s | y_t) must integrate to 1 and treat all values of an image alike, samples and `cdf` must follow it, `kl` must
    equal KL(q || p) by quadrature, and `log_ratio` must equal log p - log q by the density, in float32 as well.

    Args:
        kernel: The kernel.
        estimate: A denoiser's estimate at y_t = x + exp(gamma_t / 2) eps.
        x: The data.
        eps: The noise in y_t.
        gamma_t: Start of the step.
        gamma_s: End of the step.

    Raises:
        ConformanceError: one of these does not hold.
        RecipeError: the estimate lacks what the kernel needs.
    """
    # As arrays, not numpy's scalars, which would be constants: each gamma would compile anew.
    given = Given(_normalised(estimate), x, eps, np.asarray(gamma_t), np.asarray(gamma_s))
    patch = _patch(*x.shape)
    with jax.enable_x64(True):
        found = {name: np.asarray(values) for name, values in _on_grid(*in_float64((kernel, given.at(patch)))).items()}
    _check_density(found["y"], found["log_prob"], found["cdf"])
    _check_samples(found["ranks"])
    check_image(kernel, given, patch)


def _normalised(estimate: Estimate) -> Estimate:
    """Normalises the probabilities of levels in float64, because float32 has rounded them."""
    if estimate.log_probs is None:
        return estimate
    log_probs = np.asarray(estimate.log_probs, np.float64)
    total = np.logaddexp.reduce(log_probs, axis=-1, keepdims=True)
    return eqx.tree_at(lambda e: e.log_probs, estimate, log_probs - total)


def _patch(height: int, width: int, channels: int) -> Int[np.ndarray, "a b"]:
    """Returns the numbers of the pixels in a corner of an image, of about 48 values."""
    side = max(1, int((_VALUES / channels) ** 0.5))
    return np.arange(height * width).reshape(height, width)[:side, :side]


@compiled_fast
def _on_grid(kernel: AbstractKernel, given: Given) -> dict[str, Array]:
    """Evaluates the step on a grid of y for each value, and at its samples."""
    step, (_, sd) = kernel(given.estimate, given.y_t, given.gamma_t, given.gamma_s), given.q
    noise = np.random.default_rng(4).standard_normal((_SAMPLES, kernel.noise_draws, *given.x.shape))
    samples = jax.vmap(step.sample)(jnp.asarray(noise))
    y = jnp.linspace(samples.min(0) - 10 * sd, samples.max(0) + 10 * sd, _GRID)
    return {
        "y": y,
        "log_prob": jax.lax.map(step.log_prob, y, batch_size=64),
        "cdf": jax.lax.map(step.cdf, y, batch_size=64),
        "ranks": jax.vmap(step.cdf)(samples),
    }


def _check_density(
    y: Float[np.ndarray, "g h w c"], log_prob: Float[np.ndarray, "g h w c"], cdf: Float[np.ndarray, "g h w c"]
) -> None:
    """Checks the integral of the density by the trapezoidal rule, which is accurate for functions smooth on its grid.

    The grid may miss a level that was never drawn; a missing part then shows in the distribution function only.
    """
    density = np.exp(log_prob)
    pieces = (density[1:] + density[:-1]) / 2 * np.diff(y, axis=0)
    total = pieces.sum(0)
    most = total.flat[np.nan_to_num(total, nan=np.inf).argmax()]
    expect(most < 1 + _EXCESS, f"p(z_s given z_t) integrates to {most:.9g} for one of the values")
    off = abs(cdf[1:] - cdf[0] - pieces.cumsum(0)).max()
    expect(off < 1e-2, f"its distribution function is off the integral of its density by {off:.3g}")


def _check_samples(ranks: Float[np.ndarray, "n h w c"]) -> None:
    """Checks samples by Kolmogorov's test; sqrt(n) D > 3 has probability 3e-8."""
    values = np.sort(ranks.ravel())
    off = abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()
    expect(off * np.sqrt(len(values)) < 3, f"samples are not drawn from its distribution function: off by {off:.3g}")
