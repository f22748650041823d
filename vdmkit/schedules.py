# SPDX-License-Identifier: Apache-2.0
"""Noise schedules gamma(t) = -log SNR(t), strictly increasing on [0, 1]: t = 0 is data, t = 1 is noise.

Schedules in closed form are functions of u, which rises linearly in t from u_0 to u_1:

    linear            gamma = u, with fixed or learned ends
    cosine            gamma = 2 log tan u         alpha = cos u on the variance preserving path
    flow matching     gamma = 2 logit u           sigma = u on the straight line
    karras            gamma = 2 rho log u         sigma / alpha = u^rho
    log normal        gamma = 2 (mean + std Phi^-1(u))

`linear_beta` and `sub_vp_linear_beta` are the schedules of SDEs whose beta is linear in time. `tabulated` is the
schedule of T betas in discrete time, where beta_i = 1 - alpha_i^2 / alpha_{i-1}^2 on the variance preserving path:

    alpha_i^2 = prod_{j <= i} (1 - beta_j),   gamma_i = log((1 - alpha_i^2) / alpha_i^2),   i = 1, ..., T

`piecewise_linear`, `learned_monotone` (the authors' network) and `pinned` have learned parameters.
"""

import abc
import math
from dataclasses import KW_ONLY
from typing import Annotated, Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from annotated_types import Ge, Gt, Le, Lt
from jax.scipy.special import logit, ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.arguments import MAX_GAMMA, MAX_STEPS, Beta, Gamma, LogSigma, PartialShare, Sigma, Width
from vdmkit.errors import RecipeError
from vdmkit.registry import Choice, built, define_kind, register

__all__ = [
    "AbstractSchedule",
    "Cosine",
    "FixedLinear",
    "FlowMatching",
    "Karras",
    "LearnedLinear",
    "LearnedMonotone",
    "LinearBeta",
    "LogLinear",
    "LogNormal",
    "PiecewiseLinear",
    "Pinned",
    "Scalar",
    "ShiftedCosine",
    "Sigmoid",
    "SubVpLinearBeta",
    "Tabulated",
    "ends_of",
]

Scalar = Float[Array, ""]

_PANELS = 8000
_PARTS = 20  # gamma must increase over each of these intervals
_SMALLEST_PANEL = 1e-8
_TOLERANCE = 2e-3  # in gamma, which changes the bound by at most 0.0015 bits/dim
_TOLERANCE_OF_PANEL = 1e-5  # above the rounding error of a schedule that computes in float32
_SMALLEST_FALL = 1e-3  # of gamma over [0, 1]: allows for float32 rounding of a derivative that is 0


class AbstractSchedule(eqx.Module):
    """gamma as a function of time.

    Subclasses define gamma_min, gamma_max and `__call__`, which must be strictly increasing and differentiable.
    gamma_min and gamma_max are the ends set in the recipe. Networks scale their conditioning by them, so they stay
    fixed even if the schedule's ends are learned.
    """

    gamma_min: eqx.AbstractVar[float]
    gamma_max: eqx.AbstractVar[float]

    def __check_init__(self) -> None:
        if not self.gamma_min < self.gamma_max:
            raise RecipeError(f"gamma_min = {self.gamma_min:g} must be below gamma_max = {self.gamma_max:g}.")

    @abc.abstractmethod
    def __call__(self, t: Scalar) -> Scalar:
        """Returns gamma(t) for one t in [0, 1]."""


define_kind("schedule", "gamma(t) = -log SNR(t), from data (t = 0) to noise (t = 1)", AbstractSchedule, ("key",))


def gamma_and_derivative(schedule: AbstractSchedule, t: Scalar) -> tuple[Scalar, Scalar]:
    """Returns gamma(t) and dgamma/dt, by forward-mode differentiation."""
    return jax.jvp(schedule, (t,), (jnp.ones_like(t),))


def ends_of(schedule: AbstractSchedule) -> tuple[float, float]:
    """Returns gamma_0 and gamma_1, which differ from gamma_min and gamma_max if the ends are learned."""
    # Not jitted: fused operations round differently, which would move ends that are pinned.
    return float(schedule(jnp.asarray(0, float))), float(schedule(jnp.asarray(1, float)))


def gammas_of(schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
    """Returns gamma at t = 0, 1 / T, ..., 1."""
    return jax.vmap(schedule)(jnp.arange(steps + 1) / steps)


def check_increasing(schedule: AbstractSchedule) -> None:
    """Raises RecipeError if gamma decreases, jumps, or is not finite, because the bound is then invalid.

    On each of 8,000 panels of [0, 1] the increase of gamma must equal the integral of its derivative. Panels where
    they differ are halved repeatedly: the difference vanishes where gamma is merely steep, and persists at a jump.
    The check runs in float64, because float32 rounding looks like jumps.
    """
    with jax.enable_x64(True):
        _refuse_others(schedule)
        _refuse_rest(schedule)
        smooth, jumps, where = _unexplained(schedule, np.arange(_PANELS) / _PANELS, 1 / _PANELS)
    if not abs(smooth) + jumps < _TOLERANCE:
        near = f", near t = {where:.4f} it jumps" if jumps else ""
        raise RecipeError(
            f"gamma's rise is not the integral of its derivative{near}. It must be differentiable, without jumps."
        )


def check_ends(schedule: AbstractSchedule) -> None:
    """Raises RecipeError if |gamma| exceeds MAX_GAMMA, where z_t in float32 loses its noise or its image."""
    ends = ends_of(schedule)
    # + 1 allows for float32 rounding at the ends of a schedule that computes alpha^2 or sigma^2
    if not all(abs(gamma) <= MAX_GAMMA + 1 for gamma in ends):  # negated, so that NaN is refused
        raise RecipeError(
            f"gamma goes from {ends[0]:g} to {ends[1]:g}: expected {-MAX_GAMMA:g} to {MAX_GAMMA:g}. "
            "In float32, z_t loses its noise below this range, and its image above it."
        )


def _refuse_others(schedule: AbstractSchedule) -> None:
    """Raises RecipeError unless gamma(t) is a floating-point scalar."""
    gamma: Any = eqx.filter_eval_shape(schedule, jnp.zeros(()))
    if getattr(gamma, "shape", None) != () or not jnp.issubdtype(gamma.dtype, jnp.floating):
        found = f"{gamma.dtype} of shape {gamma.shape}" if hasattr(gamma, "shape") else type(gamma).__name__
        raise RecipeError(f"gamma(t) of one t is {found}: expected one floating-point number, of shape ().")


def _refuse_rest(schedule: AbstractSchedule) -> None:
    t = np.linspace(0, 1, _PARTS + 1)
    gamma = np.asarray(jax.vmap(schedule)(jnp.asarray(t)))
    rests = np.flatnonzero(~(np.diff(gamma) > 0))  # negated, so that NaN counts as a failure
    if len(rests):
        i = rests[0]
        raise RecipeError(
            f"gamma does not rise: gamma({t[i]:.2f}) = {gamma[i]:g}, gamma({t[i + 1]:.2f}) = {gamma[i + 1]:g}. "
            "It must be strictly increasing on [0, 1]."
        )


def _unexplained(schedule: AbstractSchedule, low: Float[np.ndarray, " n"], width: float) -> tuple[float, float, float]:
    """Compares the increase of gamma with its integrated derivative, halving the panels where they differ.

    Returns:
        The sum of the differences over panels within tolerance, the sum of absolute differences over the smallest
        panels outside tolerance, and the position t of the first such panel.
    """
    deviation, slope = _panels(schedule, low, width)
    _refuse_fall(low, slope)
    bad = abs(deviation) > _TOLERANCE_OF_PANEL
    if not bad.any() or width < _SMALLEST_PANEL:
        return float(deviation[~bad].sum()), float(abs(deviation[bad]).sum()), float(low[bad].min(initial=1.0))
    halves = np.concatenate([low[bad], low[bad] + width / 2])[:_PANELS]
    smooth, jumps, where = _unexplained(schedule, halves, width / 2)
    return float(deviation[~bad].sum()) + smooth, jumps, where


def _panels(
    schedule: AbstractSchedule, low: Float[np.ndarray, " n"], width: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns, per panel, increase minus integrated derivative (two Gauss points), and the smaller derivative."""
    padded = np.resize(low, _PANELS)  # a constant shape compiles once
    offsets = width * (0.5 + np.array([[-1], [1]]) / np.sqrt(12))
    ends = np.asarray(_at(schedule, np.stack([padded, padded + width]))[0])
    slopes = np.asarray(_at(schedule, padded + offsets)[1])
    deviation = ends[1] - ends[0] - width * slopes.mean(0)
    return deviation[: len(low)], slopes.min(0)[: len(low)]


@eqx.filter_jit
def _at(schedule: AbstractSchedule, t: Float[Any, "2 n"]) -> tuple[Float[Array, "2 n"], Float[Array, "2 n"]]:
    return jax.vmap(jax.vmap(lambda t: gamma_and_derivative(schedule, t)))(jnp.asarray(t))


def _refuse_fall(low: Float[np.ndarray, " n"], slope: Float[np.ndarray, " n"]) -> None:
    falls = np.flatnonzero(~(slope >= -_SMALLEST_FALL))  # negated, so that NaN counts as a failure
    if len(falls):
        raise RecipeError(
            f"gamma does not rise: its derivative is {slope[falls[0]]:g} near t = {low[falls[0]]:.4f}. "
            "It must be increasing on [0, 1]."
        )


Argument = Annotated[float, Ge(-MAX_GAMMA), Le(MAX_GAMMA)]
Resolution = Annotated[float, Ge(1), Le(65_536)]


def _between(low: float, high: float, t: Scalar) -> Scalar:
    return low * (1 - t) + high * t  # exact at both ends, even if their magnitudes differ greatly


@register("schedule", "fixed_linear")
class FixedLinear(AbstractSchedule):
    """gamma rises linearly from gamma_min to gamma_max; nothing is learned."""

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)

    def __call__(self, t: Scalar) -> Scalar:
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t


@register("schedule", "learned_linear")
class LearnedLinear(AbstractSchedule):
    """gamma = b + |w| t with ends learned on the bound (Kingma et al. 2021, Table 1)."""

    w: Float[Array, "1"]
    b: Float[Array, "1"]
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(self, *, gamma_min: Gamma = -13.3, gamma_max: Gamma = 5.0):
        self.w = jnp.array([gamma_max - gamma_min], dtype=float)
        self.b = jnp.array([gamma_min], dtype=float)
        self.gamma_min = gamma_min
        self.gamma_max = gamma_max

    def __call__(self, t: Scalar) -> Scalar:
        return self.b[0] + jnp.abs(self.w[0]) * t


@register("schedule", "cosine")
class Cosine(AbstractSchedule):
    """gamma = 2 log tan u (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17, with given ends instead of an offset)."""

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)

    def __call__(self, t: Scalar) -> Scalar:
        first, last = (math.atan(math.exp(gamma / 2)) for gamma in (self.gamma_min, self.gamma_max))
        return 2 * jnp.log(jnp.tan(_between(first, last, t)))


@register("schedule", "flow_matching")
class FlowMatching(AbstractSchedule):
    """gamma = 2 logit u: sigma = u on the straight line (Lipman et al. 2023, arXiv 2210.02747)."""

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=13.3)

    def __call__(self, t: Scalar) -> Scalar:
        first, last = (float(scipy.special.expit(gamma / 2)) for gamma in (self.gamma_min, self.gamma_max))
        return 2 * logit(_between(first, last, t))


@register("schedule", "log_linear")
class LogLinear(AbstractSchedule):
    """log(sigma / alpha) linear in t: the variance exploding SDE (Song et al. 2021, arXiv 2011.13456, App. C)."""

    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(self, *, sigma_min: Sigma = 0.01, sigma_max: Sigma = 50.0):
        self.gamma_min, self.gamma_max = 2 * math.log(sigma_min), 2 * math.log(sigma_max)

    def __call__(self, t: Scalar) -> Scalar:
        return _between(self.gamma_min, self.gamma_max, t)


@register("schedule", "karras")
class Karras(AbstractSchedule):
    """(sigma / alpha)^(1 / rho) linear in t: EDM's sampling steps (Karras et al. 2022, arXiv 2206.00364, eq. 5)."""

    rho: float = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self, *, sigma_min: Sigma = 0.002, sigma_max: Sigma = 80.0, rho: Annotated[float, Ge(0.5), Le(100)] = 7.0
    ):
        self.rho = rho
        self.gamma_min, self.gamma_max = 2 * math.log(sigma_min), 2 * math.log(sigma_max)

    def __call__(self, t: Scalar) -> Scalar:
        first, last = (math.exp(gamma / 2 / self.rho) for gamma in (self.gamma_min, self.gamma_max))
        return 2 * self.rho * jnp.log(_between(first, last, t))


@register("schedule", "log_normal")
class LogNormal(AbstractSchedule):
    """log(sigma / alpha) ~ N(mean, std^2) for uniform t: EDM's training distribution (Karras et al. 2022, Table 1).

    The distribution is truncated at sigma_min and sigma_max.
    """

    mean: float = eqx.field(static=True)
    std: float = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(self, *, mean: LogSigma = -1.2, std: Width = 1.2, sigma_min: Sigma = 0.002, sigma_max: Sigma = 80.0):
        self.mean, self.std = mean, std
        self.gamma_min, self.gamma_max = 2 * math.log(sigma_min), 2 * math.log(sigma_max)

    def __call__(self, t: Scalar) -> Scalar:
        # Computed from the nearer tail of the normal distribution: near u = 1, float32 loses the noisy tail.
        scores = [(gamma / 2 - self.mean) / self.std for gamma in (self.gamma_min, self.gamma_max)]
        below = _between(float(scipy.special.ndtr(scores[0])), float(scipy.special.ndtr(scores[1])), t)
        above = _between(float(scipy.special.ndtr(-scores[0])), float(scipy.special.ndtr(-scores[1])), t)
        return 2 * (self.mean + self.std * jnp.where(below < 0.5, ndtri(below), -ndtri(above)))


@register("schedule", "sigmoid")
class Sigmoid(AbstractSchedule):
    """alpha^2 falls as a sigmoid of t (Jabri et al. 2022, arXiv 2212.11972; Chen 2023, arXiv 2301.10972).

    In the papers alpha^2 is 1 at t = 0 and 0 at t = 1; here it has the values given by gamma_min and gamma_max.

    Args:
        gamma_min: gamma at t = 0.
        gamma_max: gamma at t = 1.
        start: Argument of the sigmoid at t = 0.
        end: Argument of the sigmoid at t = 1.
        tau: Temperature; the arguments are divided by it.
    """

    _: KW_ONLY
    gamma_min: Gamma = eqx.field(static=True, default=-13.3)
    gamma_max: Gamma = eqx.field(static=True, default=5.0)
    start: Argument = eqx.field(static=True, default=-3.0)
    end: Argument = eqx.field(static=True, default=3.0)
    tau: Width = eqx.field(static=True, default=1.0)

    def __call__(self, t: Scalar) -> Scalar:
        first, last = (float(scipy.special.expit(u / self.tau)) for u in (self.start, self.end))
        # sigma^2 and alpha^2 = 1 - sigma^2 at both ends, where the papers have 0 and 1
        noise_0, noise_1 = (float(scipy.special.expit(gamma)) for gamma in (self.gamma_min, self.gamma_max))
        signal_0, signal_1 = (float(scipy.special.expit(-gamma)) for gamma in (self.gamma_min, self.gamma_max))
        u = jnp.tanh(_between(self.start, self.end, t) / self.tau / 2) / 2 + 0.5
        share = (u - first) / (last - first)
        rest = (last - u) / (last - first)
        return jnp.log(noise_0 * rest + noise_1 * share) - jnp.log(signal_0 * rest + signal_1 * share)


@register("schedule", "shifted_cosine")
class ShiftedCosine(AbstractSchedule):
    """The cosine schedule shifted to more noise for larger images (Hoogeboom et al. 2023, arXiv 2301.11093, eq. 4).

    Args:
        gamma_min: gamma at t = 0 before the shift.
        gamma_max: gamma at t = 1 before the shift.
        resolution: Height (or width) of the images.
        base: Resolution at which the shift is zero.
    """

    shift: float = eqx.field(static=True)
    cosine: Cosine
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        gamma_min: Gamma = -13.3,
        gamma_max: Gamma = 5.0,
        resolution: Resolution = 128.0,
        base: Resolution = 64.0,
    ):
        self.shift = 2 * math.log(resolution / base)
        self.cosine = Cosine(gamma_min=gamma_min, gamma_max=gamma_max)
        self.gamma_min, self.gamma_max = gamma_min + self.shift, gamma_max + self.shift

    def __call__(self, t: Scalar) -> Scalar:
        return self.cosine(t) + self.shift


Start = Annotated[float, Ge(1e-8), Lt(1)]
Time = TypeVar("Time", float, Array)


@register("schedule", "linear_beta")
class LinearBeta(AbstractSchedule):
    r"""gamma of dz = -beta(s)/2 z ds + sqrt(beta(s)) dw, beta linear in s (Song et al. 2021, arXiv 2011.13456, App. C).

    With beta(s) = beta_min + s (beta_max - beta_min) and the data at s = 0:

        B(s) = int_0^s beta = beta_min s + (beta_max - beta_min) s^2 / 2
        alpha^2 = exp(-B),   sigma^2 = 1 - exp(-B),   gamma = log(exp(B) - 1)

    gamma is -inf at s = 0, so t in [0, 1] maps to s in [`epsilon`, 1]; by default gamma goes from -13.8 to 10.1. The
    authors' code uses epsilon = 1e-5 for likelihoods and 1e-3 for samples. It starts the flow at the image itself;
    vdmkit starts at alpha(0) times a point in the image's bin.
    """

    beta_min: float = eqx.field(static=True)
    beta_max: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        beta_min: Beta = 0.1,
        beta_max: Beta = 20.0,
        epsilon: Start = 1e-5,
    ):
        self.beta_min, self.beta_max, self.epsilon = beta_min, beta_max, epsilon
        start, end = self._integral(epsilon), self._integral(1.0)
        self.gamma_min = start + math.log(-math.expm1(-start))
        self.gamma_max = end + math.log(-math.expm1(-end))

    def __call__(self, t: Scalar) -> Scalar:
        integral = self._integral(self.epsilon + (1 - self.epsilon) * t)
        return integral + jnp.log(-jnp.expm1(-integral))  # log(expm1(B)), which neither overflows nor cancels

    def _integral(self, s: Time) -> Time:
        return s * (self.beta_min + (self.beta_max - self.beta_min) * s / 2)


@register("schedule", "sub_vp_linear_beta")
class SubVpLinearBeta(AbstractSchedule):
    """gamma of the sub-VP SDE with linear beta: sigma = 1 - exp(-B) (Song et al. 2021, arXiv 2011.13456, eq. 14).

    With alpha = exp(-B / 2) and gamma_vp as in `linear_beta`, gamma = 2 gamma_vp - B, where B = softplus(gamma_vp).
    """

    vp: LinearBeta
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        beta_min: Beta = 0.1,
        beta_max: Beta = 20.0,
        epsilon: Start = 1e-5,
    ):
        self.vp = LinearBeta(beta_min=beta_min, beta_max=beta_max, epsilon=epsilon)
        ends = self.vp.gamma_min, self.vp.gamma_max
        self.gamma_min, self.gamma_max = (2 * gamma - float(np.logaddexp(0, gamma)) for gamma in ends)

    def __call__(self, t: Scalar) -> Scalar:
        gamma = self.vp(t)
        return 2 * gamma - jax.nn.softplus(gamma)


def linear_betas(steps: int) -> Float[np.ndarray, " steps"]:
    """Returns DDPM's betas, 1e-4 to 0.02 for 1,000 steps (Ho et al. 2020, arXiv 2006.11239), times 1,000 / steps."""
    return np.linspace(1e-4, 0.02, steps) * 1000 / steps


def cosine_betas(steps: int) -> Float[np.ndarray, " steps"]:
    """Returns the betas of alpha^2 = cos^2 with offset 0.008, clipped at 0.999 (arXiv 2102.09672, eq. 17)."""
    u = (np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2
    return np.minimum(1 - np.cos(u[1:]) ** 2 / np.cos(u[:-1]) ** 2, 0.999)


_TABLES = {"linear": linear_betas, "cosine": cosine_betas}


@register("schedule", "tabulated")
class Tabulated(AbstractSchedule):
    """gamma of a table of T betas at t = 0, 1 / (T - 1), ..., 1, interpolated linearly.

    For a model with T steps in discrete time set objective.steps = T - 1, because its last step, from alpha_1 to the
    data, is the observation.

    Args:
        table: "linear" for DDPM's betas or "cosine" for iDDPM's; ignored if `betas` is given.
        steps: Number T of betas; ignored if `betas` is given.
        betas: Custom betas, which replace the table.
    """

    betas: tuple[float, ...] = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        table: Literal["linear", "cosine"] = "linear",
        steps: Annotated[int, Ge(2), Le(MAX_STEPS)] = 1000,
        betas: tuple[Annotated[float, Gt(0), Lt(1)], ...] | None = None,
    ):
        self.betas = betas or tuple(_TABLES[table](steps).tolist())
        if len(self.betas) < 2 or not all(0 < beta < 1 for beta in self.betas):
            raise RecipeError(f"{len(self.betas)} betas: expected at least 2, all between 0 and 1.")
        self.gamma_min, self.gamma_max = self.gammas()[[0, -1]].tolist()

    def gammas(self) -> Float[np.ndarray, " steps"]:
        """Returns gamma_1, ..., gamma_T in float64."""
        log_alpha2 = np.cumsum(np.log1p(-np.asarray(self.betas)))
        return np.log(-np.expm1(log_alpha2)) - log_alpha2

    def __call__(self, t: Scalar) -> Scalar:
        gammas = jnp.asarray(self.gammas(), float)
        place = t * (len(self.betas) - 1)
        i = jnp.clip(jnp.floor(place).astype(int), 0, len(self.betas) - 2)
        return gammas[i] + (place - i) * (gammas[i + 1] - gammas[i])


@register("schedule", "piecewise_linear")
class PiecewiseLinear(AbstractSchedule):
    """gamma is linear between knots at t = 0, 1 / n, ..., 1; its relative increase over each piece is learned.

        increase over piece i / (gamma_max - gamma_min) = floor / n + (1 - floor) softmax(logits)_i

    so gamma' is at least `floor` times its mean everywhere. The schedule is linear at initialization. The ends are
    fixed; wrap it in schedule `pinned` to learn them too.

    Args:
        gamma_min: gamma at t = 0.
        gamma_max: gamma at t = 1.
        pieces: Number n of pieces.
        floor: Smallest slope, relative to the mean slope.
    """

    logits: Float[Array, " n"]
    floor: float = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        gamma_min: Gamma = -13.3,
        gamma_max: Gamma = 5.0,
        pieces: Annotated[int, Ge(1), Le(10_000)] = 32,
        floor: PartialShare = 0.01,
    ):
        self.logits = jnp.zeros(pieces)
        self.floor, self.gamma_min, self.gamma_max = floor, gamma_min, gamma_max

    def __call__(self, t: Scalar) -> Scalar:
        n = len(self.logits)
        share = self.floor / n + (1 - self.floor) * jax.nn.softmax(self.logits)
        after = jnp.cumsum(share)  # share of the total increase up to the end of each piece
        i = jnp.clip(jnp.floor(t * n).astype(int), 0, n - 1)
        risen = after[i] - (i + 1 - t * n) * share[i]
        return self.gamma_min + (self.gamma_max - self.gamma_min) * risen


class _Positive(eqx.Module):
    """A dense layer that takes the absolute values of its weights, which makes it monotone."""

    kernel: Float[Array, "i o"]
    bias: Float[Array, " o"] | None

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, " o"]:
        # TF32 or bfloat16 products give errors of 1e-3 to 1e-2 in gamma, which may then not even be monotone.
        y = jnp.matmul(x, jnp.abs(self.kernel), precision=jax.lax.Precision.HIGHEST)
        return y if self.bias is None else y + self.bias


@register("schedule", "learned_monotone")
class LearnedMonotone(AbstractSchedule):
    """gamma = l1(t) + l3(tanh(l2(2t - 1) / 2)) / 1024 with positive weights, as in the authors' code.

    The ends start within 1e-3 of gamma_min and gamma_max and are then learned. The version in the paper (arXiv
    2107.00630v6, App. H) differs; this one matches the released checkpoint.
    """

    l1: _Positive
    l2: _Positive
    l3: _Positive
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        gamma_min: Gamma = -13.3,
        gamma_max: Gamma = 5.0,
        width: Annotated[int, Ge(1), Le(65_536)] = 1024,
    ):
        key_2, key_3 = jax.random.split(key)
        self.l1 = _Positive(jnp.array([[gamma_max - gamma_min]], dtype=float), jnp.array([gamma_min], dtype=float))
        self.l2 = _Positive(0.01 * jax.random.normal(key_2, (1, width)), jnp.zeros(width))
        self.l3 = _Positive(0.01 * jax.random.normal(key_3, (width, 1)), None)
        self.gamma_min = gamma_min
        self.gamma_max = gamma_max

    def __call__(self, t: Scalar) -> Scalar:
        t = t[None]
        hidden = 2 * (jax.nn.sigmoid(self.l2(2 * (t - 0.5))) - 0.5)
        return (self.l1(t) + self.l3(hidden) / hidden.size)[0]


_NETWORK = Choice("schedule", "learned_monotone")


@register("schedule", "pinned")
class Pinned(AbstractSchedule):
    """The shape of any schedule, rescaled to separate ends (Kingma et al. 2021, arXiv 2107.00630v6, eq. 59).

        gamma(t) = gamma_0 + (gamma_1 - gamma_0) (raw(t) - raw(0)) / (raw(1) - raw(0))

    The ends do not depend on the shape, so `objective.schedule_loss = "variance"` can train the ends on the bound and
    the shape on the variance of the loss.

    Args:
        interior: The schedule raw(t), whose own ends have no effect.
        gamma_min: Initial value of gamma_0.
        gamma_max: Initial value of gamma_1.
        ends: "learned" trains the ends on the bound; "fixed" keeps them.
    """

    interior: AbstractSchedule
    learned_ends: Float[Array, "2"] | None
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray | None = None,
        *,
        interior: Annotated[Choice | AbstractSchedule, "schedule"] = _NETWORK,
        gamma_min: Gamma = -13.3,
        gamma_max: Gamma = 5.0,
        ends: Literal["learned", "fixed"] = "learned",
    ):
        if key is None and isinstance(interior, Choice) and "key" in interior.component.injected:
            raise RecipeError(
                f"interior {interior.name} starts from random parameters: give a key, or another interior."
            )
        self.interior = built(interior, key=key)
        self.learned_ends = jnp.array([gamma_min, gamma_max], dtype=float) if ends == "learned" else None
        self.gamma_min, self.gamma_max = gamma_min, gamma_max

    def __call__(self, t: Scalar) -> Scalar:
        first, last = self.interior(jnp.zeros_like(t)), self.interior(jnp.ones_like(t))
        share = (self.interior(t) - first) / (last - first)
        gamma_0, gamma_1 = self._ends()
        return gamma_0 * (1 - share) + gamma_1 * share  # exact at both ends

    def _ends(self) -> tuple[Scalar | float, Scalar | float]:
        """Returns the ends in increasing order, even if training made them cross."""
        if self.learned_ends is None:
            return self.gamma_min, self.gamma_max
        return self.learned_ends.min(), self.learned_ends.max()
