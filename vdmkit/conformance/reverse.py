# SPDX-License-Identifier: Apache-2.0
"""Checks that the density, samples, distribution function, KL and ratio of a reverse kernel belong to one distribution.

The density is checked on a grid for a few values of an image; KL and ratio on all values, which must be treated alike.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vdmkit.conformance.checking import compiled_fast, expect, fast_key, in_float64
from vdmkit.predictions import Estimate
from vdmkit.reverse import AbstractKernel, part_of_noise
from vdmkit.schedules import Scalar

_NODES = 40
_NOISES = np.array([-1.7, 0.3, 2.1])  # standard normal draws of y_s
_DRAWN, _AT_ONCE = 2**16, 2**13  # values for which the KL is drawn, in total and per batch
_ROUNDING = 1e-6  # relative error of a ratio in float64
_ROUNDING_IN_USE = 5e-3  # in float32, five times that of AbstractKernel.log_ratio at gamma = -13 and T = 1,000


class Given(eqx.Module):
    """The inputs of a step: an estimate at y_t = x + exp(gamma_t / 2) eps, and the two gammas."""

    estimate: Estimate
    x: Float[Any, "h w c"]
    eps: Float[Any, "h w c"]
    gamma_t: Float[Any, ""]
    gamma_s: Float[Any, ""]

    @property
    def y_t(self) -> Float[Array, "h w c"]:
        return self.x + jnp.exp(self.gamma_t / 2) * self.eps

    @property
    def q(self) -> tuple[Float[Array, "h w c"], Scalar]:
        """Returns the mean and standard deviation of q(y_s | y_t, x)."""
        c = part_of_noise(self.gamma_t, self.gamma_s)
        return self.y_t + c * (self.x - self.y_t), jnp.exp(self.gamma_s / 2) * jnp.sqrt(c)

    def at(self, pixels: Int[np.ndarray, "*n"]) -> "Given":
        """Returns the inputs restricted to these pixel indices, whose array is the new image."""
        pick = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[pixels] if leaf.ndim > 2 else leaf  # noqa: E731
        return jax.tree.map(pick, self)


def check_image(kernel: AbstractKernel, given: Given, patch: Int[np.ndarray, "a b"]) -> None:
    """Checks that a kernel treats all pixels of an image alike, and its `kl` and `log_ratio`, in two precisions.

    Args:
        kernel: The kernel.
        given: The step.
        patch: Indices of the pixels whose density was checked.

    Raises:
        ConformanceError: one of these does not hold.
    """
    h, w, _ = given.x.shape
    order = np.random.default_rng(5).permutation(h * w).reshape(h, w)
    in_use = _measured(kernel, given)
    with jax.enable_x64(True):
        kernel, given = in_float64((kernel, given))
        found, kl = _measured(kernel, given), float(_kl(kernel, given))
        whole, elsewhere, alone = (np.asarray(_densities(kernel, g)) for g in (given, given.at(order), given.at(patch)))
    pixels = whole.reshape(*whole.shape[:2], h * w, -1)
    for others in ((elsewhere, order), (alone, patch)):
        off = abs(pixels[:, :, others[1]] - others[0]).max()
        expect(off < _ROUNDING, f"p(z_s given z_t) of a value changes by {off:.3g} with its place in the image")
    for one, rounding in ((found, _ROUNDING), (in_use, _ROUNDING_IN_USE)):
        draws, log_ratio = (np.asarray(values, np.float64) for values in one)
        _check_kl(draws, kl)
        _check_ratio(log_ratio, whole[0], rounding)


@compiled_fast
def _measured(kernel: AbstractKernel, given: Given) -> tuple[Float[Array, " draws"], Float[Array, "3 h w c"]]:
    """Returns draws of the KL, summed over values, and the ratios at three draws of y_s."""
    e, x, eps, gamma_t, gamma_s = given.estimate, given.x, given.eps, given.gamma_t, given.gamma_s

    def kl(key: PRNGKeyArray) -> Scalar:
        return kernel.kl(e, x, eps, gamma_t, gamma_s, key=key).sum()

    keys = jax.random.split(fast_key(4), -(-_DRAWN // x.size))
    ratio = jax.vmap(lambda n: kernel.log_ratio(e, x, eps, n * jnp.ones_like(x), gamma_t, gamma_s))
    return jax.lax.map(kl, keys, batch_size=-(-_AT_ONCE // x.size)), ratio(jnp.asarray(_NOISES, x.dtype))


@compiled_fast
def _densities(kernel: AbstractKernel, given: Given) -> Float[Array, "2 3 h w c"]:
    """Returns log p / q and the distribution function of p at three draws of y_s from q."""
    step, (mean, sd) = kernel(given.estimate, given.y_t, given.gamma_t, given.gamma_s), given.q
    n = jnp.asarray(_NOISES)[:, None, None, None]
    y, log_q = mean + sd * n, jax.scipy.stats.norm.logpdf(n) - jnp.log(sd)
    return jnp.stack([jax.vmap(step.log_prob)(y) - log_q, jax.vmap(step.cdf)(y)])


@compiled_fast
def _kl(kernel: AbstractKernel, given: Given) -> Scalar:
    """Returns E_q [log q - log p], summed over values, by quadrature."""
    step, (mean, sd) = kernel(given.estimate, given.y_t, given.gamma_t, given.gamma_s), given.q
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    log_q = -0.5 * nodes**2 - 0.5 * np.log(2 * np.pi)
    log_p = jax.lax.map(
        lambda node: step.log_prob(mean + sd * node).sum(), jnp.asarray(nodes), batch_size=-(-_AT_ONCE // mean.size)
    )
    per_node = mean.size * (jnp.asarray(log_q) - jnp.log(sd)) - log_p
    return (jnp.asarray(weights / weights.sum()) * per_node).sum()


def _check_kl(kl: Float[np.ndarray, " n"], wanted: float) -> None:
    """Checks that the mean of KL draws is within 5 standard errors and rounding, and that these are small enough."""
    error = float(kl.std() / np.sqrt(len(kl)))
    spread = f"+/- {error:.3g} of {wanted:.3g} nats"
    enough = 0.05 * abs(wanted) + 0.02
    expect(error < enough, f"the draws of its KL(q || p) spread too far to be checked: {spread}")
    limit = 5 * error + 1e-3 * abs(wanted) + 1e-8
    expect(
        abs(kl.mean() - wanted) < limit,
        f"its KL(q || p) is {kl.mean():.5g} nats, and by quadrature of its density {wanted:.5g}",
    )


def _check_ratio(found: Float[np.ndarray, "3 h w c"], wanted: Float[np.ndarray, "3 h w c"], rounding: float) -> None:
    """Checks the ratio up to the rounding of y_s, which is at most 1e5 of its standard deviations."""
    off = abs(found - wanted).max()
    expect(
        off < rounding * (1 + abs(wanted).max()),
        f"its log p / q is {off:.3g} nats off that of its density for one of the values",
    )


_VALUES = 48  # values of an image whose density is checked on a grid; all others are compared with them
_GRID, _SAMPLES = 2001, 400
_EXCESS = 1e-7  # excess of a density's integral over 1; a bound of T steps sums T of them


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
    # As arrays: numpy scalars would be compile-time constants, so that every gamma would recompile.
    given = Given(_normalised(estimate), x, eps, np.asarray(gamma_t), np.asarray(gamma_s))
    patch = _patch(*x.shape)
    with jax.enable_x64(True):
        found = {name: np.asarray(values) for name, values in _on_grid(*in_float64((kernel, given.at(patch)))).items()}
    _check_density(found["y"], found["log_prob"], found["cdf"])
    _check_samples(found["ranks"])
    check_image(kernel, given, patch)


def _normalised(estimate: Estimate) -> Estimate:
    """Normalises the probabilities of levels in float64, because they were rounded to float32."""
    if estimate.log_probs is None:
        return estimate
    log_probs = np.asarray(estimate.log_probs, np.float64)
    total = np.logaddexp.reduce(log_probs, axis=-1, keepdims=True)
    return eqx.tree_at(lambda e: e.log_probs, estimate, log_probs - total)


def _patch(height: int, width: int, channels: int) -> Int[np.ndarray, "a b"]:
    """Returns the indices of the pixels in a corner of an image, with about 48 values in total."""
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

    The grid may miss a level that was never drawn; its probability is then missing only in the distribution function.
    """
    density = np.exp(log_prob)
    pieces = (density[1:] + density[:-1]) / 2 * np.diff(y, axis=0)
    total = pieces.sum(0)
    most = total.flat[np.nan_to_num(total, nan=np.inf).argmax()]
    expect(most < 1 + _EXCESS, f"p(z_s given z_t) integrates to {most:.9g} for one of the values")
    off = abs(cdf[1:] - cdf[0] - pieces.cumsum(0)).max()
    expect(off < 1e-2, f"its distribution function is off the integral of its density by {off:.3g}")


def _check_samples(ranks: Float[np.ndarray, "n h w c"]) -> None:
    """Checks samples by the Kolmogorov-Smirnov test; sqrt(n) D > 3 has probability 3e-8."""
    values = np.sort(ranks.ravel())
    off = abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()
    expect(off * np.sqrt(len(values)) < 3, f"samples are not drawn from its distribution function: off by {off:.3g}")
