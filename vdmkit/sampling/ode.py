# SPDX-License-Identifier: Apache-2.0
"""Samplers that solve the probability-flow ODE or the reverse SDE (Song et al. 2021, arXiv 2011.13456).

In y = z / alpha and s = sigma / alpha = exp(gamma / 2), with gamma decreasing,

    ODE   dy = s/2 eps_hat dgamma = eps_hat ds
    SDE   dy = s eps_hat dgamma + s dW

Euler's, Heun's and multistep methods solve the ODE in s. Euler's and Heun's methods also take other axes u(gamma) with
a scaling a(gamma). For w = a y the ODE is

    dw/du = [dlog a/dgamma w + a s/2 eps_hat] / (du/dgamma)

DPM-Solver++ and its stochastic versions (Lu et al. 2022, arXiv 2211.01095) are exponential integrators of x_hat. With
h = (gamma_t - gamma_s) / 2, the step of log(alpha / sigma), and eta = 0 for the ODE or 1 for the SDE, a step is

    y_s = exp(-(1 + eta) h) y_t + int x_hat + s_s sqrt(1 - exp(-2 eta h)) n

and the methods differ in how they extrapolate x_hat from its values at earlier steps.

`ode` and `sde` use diffrax, which is imported on first use, because the import takes half a second and training does
not need it.
"""

import abc
from dataclasses import KW_ONLY
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float

from vdmkit.arguments import SolverSteps, Steps, Tolerance
from vdmkit.integrator import Integrator
from vdmkit.predictions import Estimate
from vdmkit.process import Image
from vdmkit.registry import register
from vdmkit.reverse import part_of_noise
from vdmkit.sampling.sampler import AbstractSampler, Denoise, History
from vdmkit.schedules import Scalar

AxisName = Literal["sigma", "variance", "vp_time"]


class AbstractAxis(eqx.Module):
    """An axis u with a scaling a. Subclasses define u and log a, both finite at gamma = -inf."""

    @abc.abstractmethod
    def position(self, gamma: Scalar) -> Scalar:
        """Returns u."""

    @abc.abstractmethod
    def log_scale(self, gamma: Scalar) -> Scalar:
        """Returns log a."""

    def slope(self, y: Image, gamma: Scalar, estimate: Estimate) -> Image:
        """Returns dw/du at y."""
        rate, log_rate = jax.grad(self.position)(gamma), jax.grad(self.log_scale)(gamma)
        return jnp.exp(self.log_scale(gamma)) * (log_rate * y + jnp.exp(gamma / 2) / 2 * estimate.eps_hat) / rate

    def move(
        self,
        y: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        slope: Image,
    ) -> Image:
        """Returns y after a linear step from gamma_t to gamma_s."""
        w = jnp.exp(self.log_scale(gamma_t)) * y + (self.position(gamma_s) - self.position(gamma_t)) * slope
        return jnp.exp(-self.log_scale(gamma_s)) * w


class Sigma(AbstractAxis):
    """u = s, the axis of EDM, in which the slope is eps_hat itself."""

    def position(self, gamma: Scalar) -> Scalar:
        return jnp.exp(gamma / 2)

    def log_scale(self, gamma: Scalar) -> Scalar:
        return jnp.zeros_like(gamma)

    def slope(self, y: Image, gamma: Scalar, estimate: Estimate) -> Image:
        return estimate.eps_hat


class SquaredSigma(AbstractAxis):
    """u = s^2, the time of the variance exploding SDE as in EDM (Karras et al. 2022, Table 1)."""

    def position(self, gamma: Scalar) -> Scalar:
        return jnp.exp(gamma)

    def log_scale(self, gamma: Scalar) -> Scalar:
        return jnp.zeros_like(gamma)


class VpTime(AbstractAxis):
    """u = time and a = alpha of the variance preserving SDE with beta from 0.1 to 20 (Song et al. 2021, App. C)."""

    beta_min: float = eqx.field(static=True, default=0.1)
    beta_rise: float = eqx.field(static=True, default=19.9)

    def position(self, gamma: Scalar) -> Scalar:
        # solves beta_min t + beta_rise t^2 / 2 = B = softplus(gamma) for t without cancellation
        integral = jax.nn.softplus(gamma)
        return 2 * integral / (jnp.sqrt(self.beta_min**2 + 2 * self.beta_rise * integral) + self.beta_min)

    def log_scale(self, gamma: Scalar) -> Scalar:
        return -jax.nn.softplus(gamma) / 2


AXES: dict[AxisName, AbstractAxis] = {"sigma": Sigma(), "variance": SquaredSigma(), "vp_time": VpTime()}


NotNegative = Annotated[float, Ge(0), Le(1e6)]


@register("sampler", "euler")
class Euler(AbstractSampler):
    """Euler's method (Karras et al. 2022, arXiv 2206.00364, section 3).

    Args:
        axis: Axis in which a step is linear: "sigma" is sigma / alpha, which gives DDIM with eta = 0; "variance" is
            its square; "vp_time" is the time of the variance preserving SDE, in the scaling of that SDE.
    """

    _: KW_ONLY
    axis: AxisName = eqx.field(static=True, default="sigma")
    noise_draws: int = eqx.field(static=True, default=0, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, axis = denoise(y_t, gamma_t), AXES[self.axis]
        return axis.move(y_t, gamma_t, gamma_s, axis.slope(y_t, gamma_t, estimate)), estimate


@register("sampler", "heun")
class Heun(AbstractSampler):
    """Heun's second-order method with noise added before each step (Karras et al. 2022, algorithm 2).

    Args:
        churn: Total amount of noise over all steps, S_churn; 0 is the ODE.
        s_min: Smallest sigma / alpha at which noise is added.
        s_max: Largest sigma / alpha at which noise is added.
        s_noise: Standard deviation of the added noise.
        axis: Axis in which a step is linear, as in Euler's method.
    """

    _: KW_ONLY
    churn: NotNegative = eqx.field(static=True, default=0.0)
    s_min: NotNegative = eqx.field(static=True, default=0.0)
    s_max: NotNegative = eqx.field(static=True, default=1e6)
    s_noise: Annotated[float, Ge(0), Le(10)] = eqx.field(static=True, default=1.0)
    axis: AxisName = eqx.field(static=True, default="sigma")
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        s_t, axis = jnp.exp(gamma_t / 2), AXES[self.axis]
        churn = self._churn(s_t, history)
        gamma_hat = gamma_t + 2 * jnp.log1p(churn)
        y_hat = y_t + s_t * jnp.sqrt(churn * (2 + churn)) * self.s_noise * noise[0]  # s_hat^2 - s_t^2, without rounding
        estimate = denoise(y_hat, gamma_hat)
        first = axis.slope(y_hat, gamma_hat, estimate)
        euler = axis.move(y_hat, gamma_hat, gamma_s, first)
        slope = (first + axis.slope(euler, gamma_s, denoise(euler, gamma_s))) / 2
        # The slope is undefined at gamma = -inf, so a last step to there is an Euler step.
        return jnp.where(jnp.isneginf(gamma_s), euler, axis.move(y_hat, gamma_hat, gamma_s, slope)), estimate

    def _churn(self, s_t: Scalar, history: History) -> Scalar:
        share = jnp.minimum(self.churn / history.steps, jnp.sqrt(2.0) - 1)
        return jnp.where((s_t >= self.s_min) & (s_t <= self.s_max), share, 0.0)


@register("sampler", "dpm_2")
class Dpm2(AbstractSampler):
    """The midpoint method with midpoints in log sigma (Lu et al. 2022, arXiv 2206.00927; k-diffusion's dpm_2)."""

    noise_draws: int = eqx.field(static=True, default=0, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, gamma = denoise(y_t, gamma_t), (gamma_t + gamma_s) / 2
        s_s, s, s_t = (jnp.exp(g / 2) for g in (gamma_s, gamma, gamma_t))
        middle = denoise(y_t + (s - s_t) * estimate.eps_hat, gamma)
        slope = jnp.where(jnp.isneginf(gamma_s), estimate.eps_hat, middle.eps_hat)
        return y_t + (s_s - s_t) * slope, estimate


@register("sampler", "lms")
class Lms(AbstractSampler):
    """A linear multistep method with the slopes of up to four steps (k-diffusion's lms).

    Args:
        order: Number of slopes; fewer in the first steps.
    """

    _: KW_ONLY
    order: Annotated[int, Ge(1), Le(4)] = eqx.field(static=True, default=4)
    noise_draws: int = eqx.field(static=True, default=0, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate = denoise(y_t, gamma_t)
        slopes = jnp.concatenate([estimate.eps_hat[None], history.eps_hat])
        nodes = jnp.exp(jnp.concatenate([gamma_t[None], history.gamma]) / 2)
        ends = jnp.exp(gamma_t / 2), jnp.exp(gamma_s / 2)
        table = jnp.stack([_adams_weights(nodes, n, *ends) for n in range(1, self.order + 1)])
        weights = table[jnp.minimum(history.count, self.order - 1)]
        return y_t + jnp.tensordot(weights, slopes, axes=1), estimate


def _adams_weights(nodes: Float[Array, "4"], order: int, start: Scalar, end: Scalar) -> Float[Array, "4"]:
    """Returns the integrals of the Lagrange polynomials of the first `order` nodes over [start, end], then zeros."""
    # Two Gauss points are exact for polynomials of degree 3.
    points = (start + end) / 2 + (end - start) / 2 * jnp.array([-1, 1]) / jnp.sqrt(3.0)

    def integral(j: int) -> Scalar:
        others = [k for k in range(order) if k != j]
        values = [(points - nodes[k]) / (nodes[j] - nodes[k]) for k in others]
        return (end - start) / 2 * jnp.prod(jnp.stack([jnp.ones(2), *values]), axis=0).sum()

    return jnp.stack([integral(j) if j < order else jnp.zeros_like(start) for j in range(4)])


Eta = Annotated[float, Ge(0), Le(10)]


def _fresh_noise(gamma_s: Scalar, eta_h: Scalar) -> Scalar:
    return jnp.exp(gamma_s / 2) * jnp.sqrt(-jnp.expm1(-2 * eta_h))


@register("sampler", "dpmpp_2m")
class DpmPlusPlus2M(AbstractSampler):
    """DPM-Solver++(2M): x_hat on the line through its last two values (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    Args:
        eta: Scale of the noise; 0 is the ODE, and 1 the SDE (k-diffusion's dpmpp_2m_sde with the midpoint rule).
    """

    _: KW_ONLY
    eta: Eta = eqx.field(static=True, default=0.0)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, h = denoise(y_t, gamma_t), (gamma_t - gamma_s) / 2
        whole = (1 + self.eta) * h
        ratio = 2 * h / (history.gamma[0] - gamma_t)  # h divided by the h of the last step
        extra = jnp.where((history.count > 0) & jnp.isfinite(ratio), ratio / 2, 0.0)
        x_hat = estimate.x_hat + extra * (estimate.x_hat - history.x_hat[0])
        y_s = jnp.exp(-whole) * y_t - jnp.expm1(-whole) * x_hat
        return y_s + _fresh_noise(gamma_s, self.eta * h) * noise[0] if self.eta else y_s, estimate


@register("sampler", "dpmpp_3m_sde")
class DpmPlusPlus3MSde(AbstractSampler):
    """The SDE with x_hat on the parabola through its last three values (k-diffusion's dpmpp_3m_sde).

    Args:
        eta: Scale of the noise; 0 is the ODE, and 1 the SDE.
    """

    _: KW_ONLY
    eta: Eta = eqx.field(static=True, default=1.0)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, h = denoise(y_t, gamma_t), (gamma_t - gamma_s) / 2
        whole = (1 + self.eta) * h
        y_s = jnp.exp(-whole) * y_t - jnp.expm1(-whole) * estimate.x_hat + self._bent(estimate, gamma_t, h, history)
        return y_s + _fresh_noise(gamma_s, self.eta * h) * noise[0] if self.eta else y_s, estimate

    def _bent(self, estimate: Estimate, gamma_t: Scalar, h: Scalar, history: History) -> Image:
        """Returns the terms with first and second differences of x_hat, which are zero for a step to gamma = -inf."""
        whole = (1 + self.eta) * h
        phi_2 = jnp.expm1(-whole) / whole + 1
        phi_3 = phi_2 / whole - 0.5
        r_0, r_1 = (history.gamma[0] - gamma_t) / 2 / h, (history.gamma[1] - history.gamma[0]) / 2 / h
        first, second = (estimate.x_hat - history.x_hat[0]) / r_0, (history.x_hat[0] - history.x_hat[1]) / r_1
        bend = (first - second) / (r_0 + r_1)
        parabola = phi_2 * (first + bend * r_0) - phi_3 * bend
        known = jnp.where(history.count > 1, parabola, phi_2 * first)
        return jnp.where((history.count > 0) & jnp.isfinite(h), known, 0.0)


class _Split(eqx.Module):
    """The end of a step to below gamma_s, and the standard deviation `up` of the noise (in y) that restores gamma_s."""

    gamma_down: Scalar
    up: Scalar


def _split(gamma_t: Scalar, gamma_s: Scalar, eta: float) -> _Split:
    s_s = jnp.exp(gamma_s / 2)
    up = jnp.minimum(s_s, eta * s_s * jnp.sqrt(part_of_noise(gamma_t, gamma_s)))
    return _Split(jnp.log(s_s**2 - up**2), up)


@register("sampler", "euler_ancestral")
class EulerAncestral(AbstractSampler):
    """Euler's method to a lower noise level, then added noise (k-diffusion's euler_ancestral).

    Args:
        eta: Scale of the noise; 0 is Euler's method, and 1 adds the ancestral noise.
    """

    _: KW_ONLY
    eta: Eta = eqx.field(static=True, default=1.0)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, to = denoise(y_t, gamma_t), _split(gamma_t, gamma_s, self.eta)
        down = jnp.exp(to.gamma_down / 2) - jnp.exp(gamma_t / 2)
        return y_t + down * estimate.eps_hat + to.up * noise[0], estimate


@register("sampler", "dpmpp_2s_ancestral")
class DpmPlusPlus2SAncestral(AbstractSampler):
    """DPM-Solver++(2S) to a lower noise level, then added noise (k-diffusion's dpmpp_2s_ancestral).

    Args:
        eta: Scale of the noise; 0 is the ODE, and 1 adds the ancestral noise.
    """

    _: KW_ONLY
    eta: Eta = eqx.field(static=True, default=1.0)
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        estimate, to = denoise(y_t, gamma_t), _split(gamma_t, gamma_s, self.eta)
        h = (gamma_t - to.gamma_down) / 2
        half = jnp.exp(-h / 2) * y_t - jnp.expm1(-h / 2) * estimate.x_hat
        middle = denoise(half, (gamma_t + to.gamma_down) / 2)
        x_hat = jnp.where(jnp.isneginf(to.gamma_down), estimate.x_hat, middle.x_hat)
        return jnp.exp(-h) * y_t - jnp.expm1(-h) * x_hat + to.up * noise[0], estimate


@register("sampler", "ode")
class Ode(AbstractSampler):
    """The ODE by any explicit solver of diffrax, from each gamma of the grid to the next; a grid of one step suffices.

    If the solver does not reach the next gamma, the image is NaN. A step to gamma = -inf is an Euler step.

    Args:
        solver: Name of the solver in diffrax.
        rtol: Relative tolerance of an adaptive step.
        atol: Absolute tolerance of an adaptive step.
        solver_steps: Number of constant solver steps for each step of the grid; by default the steps are adaptive.
        max_steps: Largest number of adaptive steps for each step of the grid.
    """

    integrator: Integrator
    noise_draws: int = eqx.field(static=True)

    def __init__(
        self,
        *,
        solver: str = "Tsit5",
        rtol: Tolerance = 1e-4,
        atol: Tolerance = 1e-4,
        solver_steps: Steps | None = None,
        max_steps: SolverSteps = 4096,
    ):
        tolerances = jnp.asarray(rtol, float), jnp.asarray(atol, float)
        self.integrator = Integrator(solver, *tolerances, solver_steps or 0, max_steps)
        self.noise_draws = 0

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        def field(gamma, state, args):
            return jnp.exp(gamma / 2) / 2 * denoise(state[0], gamma).eps_hat, jnp.zeros_like(state[1])

        estimate, endless = denoise(y_t, gamma_t), jnp.isneginf(gamma_s)
        end = jnp.where(endless, gamma_t - 1, gamma_s)
        state = (y_t, jnp.zeros((), y_t.dtype))
        solve = self.integrator.solve(field, gamma_t, end, state, None)
        solved = jnp.where(solve.finished, solve.state[0], jnp.nan)
        return jnp.where(endless, estimate.x_hat, solved), estimate


@register("sampler", "sde")
class Sde(AbstractSampler):
    """The reverse SDE by a solver of diffrax, with one solver step for each step of the grid.

    Args:
        solver: Name of the solver in diffrax, which must support Ito SDEs with additive noise.
    """

    _: KW_ONLY
    solver: Literal["Euler", "Heun"] = eqx.field(static=True, default="Euler")
    noise_draws: int = eqx.field(static=True, default=1, init=False)

    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        import diffrax
        import lineax

        def drift(gamma, y, args):
            return jnp.exp(gamma / 2) * denoise(y, gamma).eps_hat

        estimate, endless = denoise(y_t, gamma_t), jnp.isneginf(gamma_s)
        end = jnp.where(endless, gamma_t - 1, gamma_s)
        # A control path for this step only, whose increment is that of the Brownian motion.
        ends = jnp.stack([jnp.sqrt(gamma_t - end) * noise[0], jnp.zeros_like(y_t)])
        increment = diffrax.LinearInterpolation(jnp.stack([end, gamma_t]), ends)
        spread = lambda gamma, y, args: lineax.DiagonalLinearOperator(jnp.exp(gamma / 2) * jnp.ones_like(y))  # noqa: E731
        diffusion = diffrax.ControlTerm(spread, increment)
        terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffusion)
        solver = getattr(diffrax, self.solver)()
        start = solver.init(terms, gamma_t, end, y_t, None)
        y_s, *_ = solver.step(terms, gamma_t, end, y_t, None, start, made_jump=False)
        return jnp.where(endless, estimate.x_hat, y_s), estimate
