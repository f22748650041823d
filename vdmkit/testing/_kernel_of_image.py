# SPDX-License-Identifier: Apache-2.0
"""Checks of a reverse kernel on all values of an image: KL and ratio are those of one density, the same for all."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vdmkit.denoiser import Estimate
from vdmkit.kernel import AbstractKernel, part_of_noise
from vdmkit.testing._compile import compiled_fast, fast_key
from vdmkit.testing._expect import expect, in_float64
from vdmkit.typing import Scalar

_NODES = 40
_NOISES = np.array([-1.7, 0.3, 2.1])  # standard normal draws of y_s
_DRAWN, _AT_ONCE = 2**16, 2**13  # values of which a KL is drawn, in all and at once
_ROUNDING = 1e-6  # of a ratio in float64, relative
_ROUNDING_IN_USE = 5e-3  # in float32, five times that of AbstractKernel.log_ratio at gamma = -13 and T = 1,000


class Given(eqx.Module):
    """What a step is checked at: an estimate at y_t = x + exp(gamma_t / 2) eps, and the two gammas."""

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
        """Returns mean and standard deviation of q(y_s | y_t, x)."""
        c = part_of_noise(self.gamma_t, self.gamma_s)
        return self.y_t + c * (self.x - self.y_t), jnp.exp(self.gamma_s / 2) * jnp.sqrt(c)

    def at(self, pixels: Int[np.ndarray, "*n"]) -> "Given":
        """Returns the same for an image of these pixels, in rows."""
        pick = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[pixels] if leaf.ndim > 2 else leaf  # noqa: E731
        return jax.tree.map(pick, self)


def check_image(kernel: AbstractKernel, given: Given, patch: Int[np.ndarray, "a b"]) -> None:
    """Checks that a kernel treats all pixels of an image alike, and its `kl` and `log_ratio`, in two precisions.

    Args:
        kernel: The kernel.
        given: The step.
        patch: Numbers of pixels whose density was checked.

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
    """Checks the mean of draws of the KL within 5 standard errors and rounding, and that these are small enough."""
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
