# SPDX-License-Identifier: Apache-2.0
r"""The probability-flow ODE and the reverse SDE by diffrax, in gamma (Song et al. 2021, arXiv 2011.13456).

ODE   dy = s/2 eps_hat dgamma
SDE   dy = s eps_hat dgamma + s dw,   gamma falling,   s = sigma / alpha = exp(gamma / 2)

diffrax is loaded on first use: it takes half a second, and training does without it.
"""

from dataclasses import KW_ONLY
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.denoiser import Estimate
from vdmkit.integrator import Integrator
from vdmkit.limits import SolverSteps, Steps, Tolerance
from vdmkit.registry import register
from vdmkit.sampling._denoise import Denoise
from vdmkit.sampling._sampler import AbstractSampler, History
from vdmkit.typing import Image, Scalar


@register("sampler", "ode")
class Ode(AbstractSampler):
    """The ODE by any explicit solver of diffrax, from each gamma of the grid to the next; a grid of one step suffices.

    If the solver does not reach the next gamma, the image is NaN. A step to gamma = -inf is Euler's.

    Args:
        solver: Name of the solver in diffrax.
        rtol: Relative tolerance of an adaptive step.
        atol: Absolute tolerance of an adaptive step.
        solver_steps: Number of constant steps for each step of the grid; by default the tolerances choose.
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
        stand = self.integrator.solve(field, gamma_t, end, state, None)
        solved = jnp.where(stand.arrived, stand.state[0], jnp.nan)
        return jnp.where(endless, estimate.x_hat, solved), estimate


@register("sampler", "sde")
class Sde(AbstractSampler):
    """The reverse SDE by a solver of diffrax, with one solver step for each step of the grid.

    Args:
        solver: Name of the solver in diffrax, for Ito SDEs with additive noise.
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
        # The Brownian motion of this step alone, with the given increment.
        ends = jnp.stack([jnp.sqrt(gamma_t - end) * noise[0], jnp.zeros_like(y_t)])
        increment = diffrax.LinearInterpolation(jnp.stack([end, gamma_t]), ends)
        spread = lambda gamma, y, args: lineax.DiagonalLinearOperator(jnp.exp(gamma / 2) * jnp.ones_like(y))  # noqa: E731
        diffusion = diffrax.ControlTerm(spread, increment)
        terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffusion)
        solver = getattr(diffrax, self.solver)()
        start = solver.init(terms, gamma_t, end, y_t, None)
        y_s, *_ = solver.step(terms, gamma_t, end, y_t, None, start, made_jump=False)
        return jnp.where(endless, estimate.x_hat, y_s), estimate
