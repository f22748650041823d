# SPDX-License-Identifier: Apache-2.0
r"""The probability-flow ODE of one image, in gamma (Song et al. 2021, arXiv 2011.13456, section 4.3).

    dz/dgamma = (dlog alpha/dgamma) z + sigma/2 eps_hat(z; gamma)

    log p(z_0) = log p_1(z_1) + int_{gamma_0}^{gamma_1} div dgamma
           div = d dlog alpha/dgamma + sigma/2 div eps_hat

The first part of div is integrated in closed form, d (log alpha_1 - log alpha_0). As in the bound and in sampling,
p_1 = N(0, (alpha_1^2 + sigma_1^2) I), so that only gamma_1 matters.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vdmkit.errors import RecipeError
from vdmkit.likelihood._divergence import value_and_divergence
from vdmkit.model import DiffusionModel
from vdmkit.registry import nearest

State = tuple[Float[Array, "h w c"], Float[Array, ""]]  # z, and int sigma/2 div eps_hat per dimension

# Implicit solvers solve d equations a step, by an unknown number of calls of the network.
SOLVERS: dict[str, type[diffrax.AbstractSolver]] = {
    name: value
    for name, value in vars(diffrax).items()
    if isinstance(value, type)
    and issubclass(value, diffrax.AbstractERK | diffrax.Euler)
    and not name.startswith("Abstract")
}


_TIGHT, _REFINED_STEPS = 1e-5, 4096
_FIRST_STEP = 0.01  # of gamma: short enough to be accepted, and the next may be 10 times as long


class Integrator(eqx.Module):
    """How the ODE is solved: in `steps` equal steps of gamma, or in steps chosen by the tolerances where `steps` is 0.

    A step's error is within atol + rtol |value|: the root mean square over the pixels of z, and the log density, in
    nats per dimension. Tolerances are arrays, so that another one compiles nothing.
    """

    solver: str = eqx.field(static=True)
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    steps: int = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.solver not in SOLVERS:
            known = sorted(SOLVERS)
            raise RecipeError(
                f'likelihood.estimator.solver = "{self.solver}": expected an explicit Runge-Kutta solver of diffrax: '
                f"{', '.join(known)}.{nearest(self.solver, known)}"
            )
        if not self.steps and not issubclass(SOLVERS[self.solver], diffrax.AbstractAdaptiveSolver):
            raise RecipeError(
                f'likelihood.estimator.solver = "{self.solver}" does not estimate its error, which step_size = '
                '"adaptive" needs. Set step_size = "constant" and steps, or take Tsit5.'
            )

    def describe(self) -> str:
        """The solver with its steps or tolerances."""
        how = f"{self.steps} steps" if self.steps else f"rtol {float(self.rtol):.0e}, atol {float(self.atol):.0e}"
        return f"{self.solver}, {how}"

    def refined(self) -> "Integrator":
        """A tenth of the tolerances, and at most 1e-5: a tenth of one that lets everything pass may do so too."""
        solver = "Tsit5" if self.steps else self.solver
        rtol, atol = (jnp.minimum(jnp.inf if self.steps else t / 10, _TIGHT) for t in (self.rtol, self.atol))
        return Integrator(solver, rtol, atol, 0, max(self.max_steps, _REFINED_STEPS))

    def solve(
        self, field: diffrax.ODETerm, start: Float[Array, ""], end: Float[Array, ""], state: State, args: object
    ) -> diffrax.Solution:
        """The state at `end`, or wherever the solver got stuck: see `result`."""
        adaptive = diffrax.PIDController(rtol=self.rtol, atol=self.atol, norm=_largest_error)
        return diffrax.diffeqsolve(
            field,
            SOLVERS[self.solver](),
            start,
            end,
            (end - start) / self.steps if self.steps else _FIRST_STEP,
            state,
            args,
            stepsize_controller=diffrax.ConstantStepSize() if self.steps else adaptive,
            adjoint=diffrax.ForwardMode(),  # nothing is differentiated: plain loops
            max_steps=self.steps or self.max_steps,
            throw=False,
        )

    def calls(self, steps: Int[Array, ""]) -> Int[Array, ""]:
        """How often `steps` steps evaluate the field; one more at each rejection of the very first step."""
        tableau = getattr(SOLVERS[self.solver], "tableau", None)
        stages, reused = (tableau.num_stages, int(tableau.fsal)) if tableau else (1, 0)
        return reused + (stages - reused) * steps


class Transport(eqx.Module):
    """Where the flow takes z_0: z_1, and int div, nats. `calls` counts evaluations of the field."""

    z_1: Float[Array, "h w c"]
    volume: Float[Array, ""]
    calls: Int[Array, ""]
    failed: Bool[Array, ""]


def transport(
    model: DiffusionModel, z_0: Float[Array, "h w c"], probes: Float[Array, "p h w c"], integrator: Integrator
) -> Transport:
    """From gamma_0 to gamma_1, with the same probes of the divergence all the way."""
    gamma_0, gamma_1 = model.schedule(jnp.zeros(())), model.schedule(jnp.ones(()))
    start = (z_0, jnp.zeros((), z_0.dtype))
    solution = integrator.solve(diffrax.ODETerm(_field), gamma_0, gamma_1, start, (model, probes))
    assert solution.ts is not None
    z_1, mean_divergence = jax.tree.map(lambda saved: saved[-1], solution.ys)
    linear = model.path.log_alpha(gamma_1) - model.path.log_alpha(gamma_0)
    finite = jnp.isfinite(z_1).all() & jnp.isfinite(mean_divergence)
    arrived = (solution.result == diffrax.RESULTS.successful) & (solution.ts[-1] == gamma_1)
    calls = integrator.calls(solution.stats["num_steps"])
    return Transport(z_1, z_0.size * (linear + mean_divergence), calls, ~(finite & arrived))


def log_prior(model: DiffusionModel, z_1: Float[Array, "h w c"]) -> Float[Array, ""]:
    """log p_1(z_1) in nats, p_1 = N(0, (alpha_1^2 + sigma_1^2) I)."""
    gamma_1 = model.schedule(jnp.ones(()))
    scale = model.path.scale(gamma_1)
    return -((z_1 / scale) ** 2).sum() / 2 - z_1.size * (jnp.log(2 * jnp.pi) / 2 + jnp.log(scale))


def _field(gamma: Any, state: State, args: tuple[DiffusionModel, Float[Array, "p h w c"]]) -> State:
    (z, _), (model, probes) = state, args
    eps_hat, divergence = value_and_divergence(lambda z: model.denoise(z, gamma, {}).eps_hat, z, probes)
    half_sigma = model.path.sigma(gamma) / 2
    return jax.grad(model.path.log_alpha)(gamma) * z + half_sigma * eps_hat, half_sigma * divergence / z.size


def _largest_error(scaled: State) -> Float[Array, ""]:
    # One mean over z and the log density would let the latter be off by sqrt(d) times the tolerance.
    z, density = scaled
    return jnp.maximum(jnp.sqrt((z**2).mean()), jnp.abs(density))
