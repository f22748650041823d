# SPDX-License-Identifier: Apache-2.0
"""Checks that a reverse kernel's density, samples, distribution function, KL and ratio belong to one distribution."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vdmkit.denoiser import Estimate
from vdmkit.kernel import AbstractKernel, AbstractStep
from vdmkit.testing._compile import compiled_fast, fast_key
from vdmkit.testing._expect import expect, in_float64
from vdmkit.typing import Scalar

_VALUES = 48  # values of an image that are checked, because kernels treat all alike
_GRID, _SAMPLES, _DRAWS, _NODES = 2001, 400, 2048, 40
_EXCESS = 1e-7  # of a density's integral over 1; a bound of T steps adds up T of them
_NOISES = (-1.7, 0.3, 2.1)  # standard normal draws of y_s, for the ratio of densities


def check_kernel(
    kernel: AbstractKernel,
    estimate: Estimate,
    x: Float[Any, "h w c"],
    eps: Float[Any, "h w c"],
    gamma_t: Float[Any, ""],
    gamma_s: Float[Any, ""],
) -> None:
    """Checks a kernel's step in float64: its density, samples, `cdf`, `kl` and `log_ratio`.

    p(y_s | y_t) must integrate to 1, samples and `cdf` must follow it, `kl` must equal KL(q || p) by quadrature, and
    `log_ratio` must equal log p - log q by the density.

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
    estimate, x, eps = _patch((_normalised(estimate), x, eps))
    noise = np.random.default_rng(4).standard_normal((_SAMPLES, kernel.noise_draws, *x.shape))
    with jax.enable_x64(True):
        given = in_float64((kernel, estimate, x, eps, gamma_t, gamma_s, noise))
        found = {name: np.asarray(values) for name, values in _evaluated(*given).items()}
    _check_density(found["y"], found["log_prob"], found["cdf"])
    _check_samples(found["ranks"])
    _check_kl(found["kl"], found["kl_by_quadrature"])
    _check_ratio(found["log_ratio"], found["log_ratio_by_density"])


def _normalised(estimate: Estimate) -> Estimate:
    """Normalises the probabilities of levels in float64, because float32 has rounded them."""
    if estimate.log_probs is None:
        return estimate
    log_probs = np.asarray(estimate.log_probs, np.float64)
    total = np.logaddexp.reduce(log_probs, axis=-1, keepdims=True)
    return eqx.tree_at(lambda e: e.log_probs, estimate, log_probs - total)


def _patch(tree: PyTree) -> PyTree:
    """Returns a corner of an image, of at most 48 values."""

    def cut(leaf: Array | np.ndarray) -> Array | np.ndarray:
        side = max(1, int((_VALUES / leaf.shape[2]) ** 0.5))
        return leaf[:side, :side, :_VALUES]

    return jax.tree.map(cut, tree)


@compiled_fast
def _evaluated(
    kernel: AbstractKernel, estimate: Estimate, x: Array, eps: Array, gamma_t: Array, gamma_s: Array, noise: Any
) -> dict[str, Array]:
    """Evaluates the step on a grid of y for each value, at its samples, and at the nodes of q."""
    y_t = x + jnp.exp(gamma_t / 2) * eps
    step = kernel(estimate, y_t, gamma_t, gamma_s)
    c = -jnp.expm1(gamma_s - gamma_t)
    mean, sd = y_t + c * (x - y_t), jnp.exp(gamma_s / 2) * jnp.sqrt(c)
    samples = jax.vmap(step.sample)(noise)
    y = jnp.linspace(samples.min(0) - 10 * sd, samples.max(0) + 10 * sd, _GRID)
    n = jnp.asarray(_NOISES)[:, None, None, None] * jnp.ones_like(x)

    def kl(key: PRNGKeyArray) -> Scalar:
        return kernel.kl(estimate, x, eps, gamma_t, gamma_s, key=key).sum()

    return {
        "y": y,
        "log_prob": jax.lax.map(step.log_prob, y, batch_size=64),
        "cdf": jax.lax.map(step.cdf, y, batch_size=64),
        "ranks": jax.vmap(step.cdf)(samples),
        "kl": jax.lax.map(kl, jax.random.split(fast_key(4), _DRAWS), batch_size=128),
        "kl_by_quadrature": _kl(step, mean, sd),
        "log_ratio": jax.vmap(lambda n: kernel.log_ratio(estimate, x, eps, n, gamma_t, gamma_s))(n),
        "log_ratio_by_density": jax.vmap(step.log_prob)(mean + sd * n) - jax.scipy.stats.norm.logpdf(n) + jnp.log(sd),
    }


def _kl(step: AbstractStep, mean: Array, sd: Array) -> Scalar:
    """Returns E_q [log q - log p], summed over values, q = N(mean, sd^2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    log_q = -0.5 * nodes**2 - 0.5 * np.log(2 * np.pi)
    log_p = jax.vmap(lambda node: step.log_prob(mean + sd * node).sum())(jnp.asarray(nodes))
    per_node = mean.size * (jnp.asarray(log_q) - jnp.log(sd)) - log_p
    return (jnp.asarray(weights / weights.sum()) * per_node).sum()


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


def _check_kl(kl: Float[np.ndarray, " n"], wanted: Float[np.ndarray, ""]) -> None:
    """Checks the mean of draws of the KL within 5 standard errors and rounding, and that these are small enough."""
    error = float(kl.std() / np.sqrt(len(kl)))
    spread = f"+/- {error:.3g} of {float(wanted):.3g} nats"
    enough = 0.05 * abs(float(wanted)) + 0.02
    expect(error < enough, f"the draws of its KL(q || p) spread too far to be checked: {spread}")
    limit = 5 * kl.std() / np.sqrt(len(kl)) + 1e-3 * abs(wanted) + 1e-8
    expect(
        abs(kl.mean() - wanted) < limit,
        f"its KL(q || p) is {kl.mean():.5g} nats, and by quadrature of its density {float(wanted):.5g}",
    )


def _check_ratio(found: Float[np.ndarray, "n h w c"], wanted: Float[np.ndarray, "n h w c"]) -> None:
    """Checks the ratio up to the rounding of y_s, which is at most 1e5 of its standard deviations."""
    off = abs(found - wanted).max()
    expect(
        off < 1e-6 * (1 + abs(wanted).max()),
        f"its log p / q is {off:.3g} nats off that of its density for one of the values",
    )
