# SPDX-License-Identifier: Apache-2.0
"""The Gaussian diffusion process of one image (Kingma et al. 2021, arXiv 2107.00630v6), in terms of gamma.

A path gives alpha and sigma of the latent z = alpha x + sigma eps as functions of gamma = log(sigma^2 / alpha^2).
For any path, and s < t:

    q(z_t | x)      = N(alpha_t x, sigma_t^2 I)
    q(z_s | z_t, x) = N(alpha_s [(1 - c) z_t / alpha_t + c x], sigma_s^2 c I),   c = 1 - SNR(t) / SNR(s)

A grid gives the gammas at the ends of T discrete steps, from the noisiest to the cleanest.
"""

import abc
import itertools
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Array, Float

from vdmkit.errors import RecipeError
from vdmkit.registry import define_kind, register
from vdmkit.schedules import AbstractSchedule, Scalar, ends_of, gammas_of

__all__ = [
    "AbstractGrid",
    "AbstractPath",
    "GivenGammas",
    "Image",
    "KarrasGrid",
    "Quadratic",
    "StraightLine",
    "SubVariancePreserving",
    "TabulatedGrid",
    "UniformInGamma",
    "UniformInTime",
    "VarianceExploding",
    "VariancePreserving",
    "diffuse",
]

Image = Float[Array, "h w c"]  # the pixels, latent or noise of one image, or an estimate of them


class AbstractPath(eqx.Module):
    """alpha and sigma as functions of gamma. Subclasses define log alpha; sigma follows from SNR = exp(-gamma)."""

    @abc.abstractmethod
    def log_alpha(self, gamma: Scalar) -> Scalar:
        """Returns log alpha at gamma."""

    def alpha(self, gamma: Scalar) -> Scalar:
        """Returns alpha, the scale of the data in z."""
        return jnp.exp(self.log_alpha(gamma))

    def sigma(self, gamma: Scalar) -> Scalar:
        """Returns sigma = alpha exp(gamma / 2), the scale of the noise in z."""
        return jnp.exp(self.log_alpha(gamma) + gamma / 2)

    def scale(self, gamma: Scalar) -> Scalar:
        """Returns sqrt(alpha^2 + sigma^2), which at gamma_1 is the scale of the prior p(z_1) = N(0, scale^2 I)."""
        return jnp.hypot(self.alpha(gamma), self.sigma(gamma))


define_kind("path", "alpha and sigma of z = alpha x + sigma eps, at a given gamma", AbstractPath)


@register("path", "variance_preserving")
class VariancePreserving(AbstractPath):
    """alpha^2 + sigma^2 = 1 (Kingma et al. 2021, arXiv 2107.00630v6, section 3.1)."""

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return -jax.nn.softplus(gamma) / 2

    def scale(self, gamma: Scalar) -> Scalar:
        return jnp.ones_like(gamma)


@register("path", "variance_exploding")
class VarianceExploding(AbstractPath):
    """alpha = 1 (Song & Ermon 2019, arXiv 1907.05600; Karras et al. 2022, arXiv 2206.00364)."""

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return jnp.zeros_like(gamma)


@register("path", "sub_variance_preserving")
class SubVariancePreserving(AbstractPath):
    """sigma = 1 - alpha^2 (Song et al. 2021, arXiv 2011.13456, eq. 14).

    With r = sigma / alpha, alpha solves alpha^2 + r alpha - 1 = 0.
    """

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return -jnp.arcsinh(jnp.exp(gamma / 2) / 2)


@register("path", "straight_line")
class StraightLine(AbstractPath):
    """alpha + sigma = 1, as in flow matching (Lipman et al. 2023, arXiv 2210.02747)."""

    def log_alpha(self, gamma: Scalar) -> Scalar:
        return -jax.nn.softplus(gamma / 2)


def diffuse(
    path: AbstractPath, gamma: Scalar, x: Float[Array, "*shape"], eps: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Returns z_t = alpha_t x + sigma_t eps."""
    return path.alpha(gamma) * x + path.sigma(gamma) * eps


def reverse(
    path: AbstractPath,
    gamma_s: Scalar,
    gamma_t: Scalar,
    z_t: Float[Array, "*shape"],
    eps: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Scalar]:
    """Returns mean and standard deviation of q(z_s | z_t, x), where z_t = alpha_t x + sigma_t eps (App. A, eq. 33).

    With eps_hat instead of eps this is the paper's reverse model p(z_s | z_t). The mean is a function of eps rather
    than x, to avoid cancellation at low noise levels.
    """
    c = -jnp.expm1(gamma_s - gamma_t)
    scale = jnp.exp(path.log_alpha(gamma_s) - path.log_alpha(gamma_t))
    return scale * (z_t - path.sigma(gamma_t) * c * eps), path.sigma(gamma_s) * jnp.sqrt(c)


_OFF = 1e-3  # above the rounding error of gamma in float32


class AbstractGrid(eqx.Module):
    """The gammas of T steps. Subclasses choose them between the schedule's ends."""

    @abc.abstractmethod
    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        """Returns T + 1 gammas that decrease from gamma_1 to gamma_0."""

    def ends_of_step(self, schedule: AbstractSchedule, t: Scalar, steps: int) -> tuple[Scalar, Scalar]:
        """Returns gamma_t and gamma_s of step number t T, where t is one of 1/T, 2/T, ..., 1."""
        gammas = self(schedule, steps)[::-1]
        i = jnp.round(t * steps).astype(int)
        return gammas[i], gammas[i - 1]


define_kind("grid", "the gammas of T steps, of sampling or of the bound", AbstractGrid)


@register("grid", "uniform")
class UniformInTime(AbstractGrid):
    """The schedule's gammas at t = 1, 1 - 1/T, ..., 0."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        return gammas_of(schedule, steps)[::-1]

    def ends_of_step(self, schedule: AbstractSchedule, t: Scalar, steps: int) -> tuple[Scalar, Scalar]:
        """Returns gamma_t and gamma_s without computing the gammas of the other steps."""
        return schedule(t), schedule(t - 1 / steps)


@register("grid", "quadratic")
class Quadratic(AbstractGrid):
    """Equal steps of sqrt(t), which are shorter near the data (Song et al. 2021, arXiv 2010.02502, App. D.2)."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        return jax.vmap(schedule)((jnp.arange(steps, -1, -1) / steps) ** 2)


@register("grid", "gamma")
class UniformInGamma(AbstractGrid):
    """Equal steps of gamma, and so of log(sigma / alpha) (k-diffusion's exponential)."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        gamma_0, gamma_1 = gammas_of(schedule, 1)
        return jnp.linspace(gamma_1, gamma_0, steps + 1)


@register("grid", "karras")
class KarrasGrid(AbstractGrid):
    """Equal steps of (sigma / alpha)^(1 / rho) (Karras et al. 2022, arXiv 2206.00364, eq. 5)."""

    _: KW_ONLY
    rho: Annotated[float, Ge(0.5), Le(100)] = eqx.field(static=True, default=7.0)

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        last, first = jnp.exp(gammas_of(schedule, 1) / 2 / self.rho)
        return 2 * self.rho * jnp.log(jnp.linspace(first, last, steps + 1))


@register("grid", "tabulated")
class TabulatedGrid(AbstractGrid):
    """The schedule's gammas at T + 1 given times, which decrease from 1 to 0."""

    _: KW_ONLY
    times: tuple[Annotated[float, Ge(0), Le(1)], ...] = eqx.field(static=True, default=(1.0, 0.0))

    def __check_init__(self) -> None:
        falls = all(a > b for a, b in itertools.pairwise(self.times))
        if len(self.times) < 2 or not falls or self.times[0] > 1 or self.times[-1] < 0:
            raise RecipeError(f"times = {list(self.times)}: expected at least two that fall from 1 to 0.")

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        _check_steps("tabulated", len(self.times) - 1, steps)
        return jax.vmap(schedule)(jnp.asarray(self.times))


@register("grid", "gammas")
class GivenGammas(AbstractGrid):
    """Given gammas, mapped linearly to the ends of the schedule, as saved by `vdmkit study`.

    Args:
        gammas: T + 1 numbers, increasing or decreasing.
    """

    gammas: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, *, gammas: tuple[Annotated[float, Ge(-100), Le(100)], ...]):
        self.gammas = tuple(sorted(gammas, reverse=True))
        if self.gammas not in (gammas, gammas[::-1]) or len(set(gammas)) != len(gammas) or len(gammas) < 2:
            raise RecipeError(f"gammas = {list(gammas)}: expected at least two that rise or fall.")

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        _check_steps("gammas", len(self.gammas) - 1, steps)
        gamma_0, gamma_1 = gammas_of(schedule, 1)
        given = jnp.asarray(self.gammas)
        share = (given - given[-1]) / (given[0] - given[-1])
        return gamma_0 * (1 - share) + gamma_1 * share


def _check_steps(name: str, given: int, steps: int) -> None:
    if steps != given:
        raise RecipeError(f"grid {name}: it has {given} steps, but {steps} were asked for.")


def steps_of_bound(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> Float[np.ndarray, " steps_plus_1"]:
    """Returns the gammas in increasing order.

    Raises:
        RecipeError: the gammas are not monotone, or the T steps do not cover the schedule from end to end.
    """
    gammas, ends = np.asarray(grid(schedule, steps), np.float64)[::-1], ends_of(schedule)
    if not (np.diff(gammas) > -_OFF).all():  # negated, so that NaN is refused
        raise RecipeError(f"grid {type(grid).__name__}: its gammas do not fall from step to step.")
    if not np.allclose(gammas[[0, -1]], ends, rtol=0, atol=_OFF):
        raise RecipeError(
            f"grid {type(grid).__name__}: it goes from gamma = {gammas[-1]:g} to {gammas[0]:g}, and the schedule from "
            f"{ends[1]:g} to {ends[0]:g}. A bound needs the whole range."
        )
    return gammas
