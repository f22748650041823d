# SPDX-License-Identifier: Apache-2.0
"""Solving an ODE in gamma by diffrax, in constant steps or in steps chosen by tolerances."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vdmkit.errors import RecipeError
from vdmkit.registry import nearest

State = tuple[Float[Array, "h w c"], Float[Array, ""]]  # z, and a log density per dimension

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
                f'solver = "{self.solver}": expected an explicit Runge-Kutta solver of diffrax: '
                f"{', '.join(known)}.{nearest(self.solver, known)}"
            )
        if not self.steps and not issubclass(SOLVERS[self.solver], diffrax.AbstractAdaptiveSolver):
            raise RecipeError(
                f'solver = "{self.solver}" does not estimate its error, which step_size = '
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
            None if self.steps else jnp.copysign(_FIRST_STEP, end - start),
            state,
            args,
            stepsize_controller=self._constant(start, end) if self.steps else adaptive,
            adjoint=diffrax.ForwardMode(),  # nothing is differentiated: plain loops
            max_steps=self.steps or self.max_steps,
            throw=False,
        )

    def _constant(self, start: Float[Array, ""], end: Float[Array, ""]) -> diffrax.StepTo:
        # Nodes, not a width: by rounding, a sum of widths may end before the end, one step too early.
        return diffrax.StepTo(ts=jnp.linspace(start, end, self.steps + 1))

    def calls(self, steps: Int[Array, ""]) -> Int[Array, ""]:
        """How often `steps` steps evaluate the field; one more at each rejection of the very first step."""
        tableau = getattr(SOLVERS[self.solver], "tableau", None)
        stages, reused = (tableau.num_stages, int(tableau.fsal)) if tableau else (1, 0)
        return reused + (stages - reused) * steps


def _largest_error(scaled: State) -> Float[Array, ""]:
    # One mean over z and the log density would let the latter be off by sqrt(d) times the tolerance.
    z, density = scaled
    return jnp.maximum(jnp.sqrt((z**2).mean()), jnp.abs(density))
