# SPDX-License-Identifier: Apache-2.0
"""Solves an ODE in gamma by diffrax, with constant steps or with steps chosen by tolerances.

diffrax is loaded on first use: it takes half a second, and training does without it.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vdmkit.errors import RecipeError
from vdmkit.registry import nearest
from vdmkit.typing import Image, Scalar

if TYPE_CHECKING:
    import diffrax

State = tuple[Image, Scalar]  # z, and a log density per dimension


@functools.cache
def solvers() -> "dict[str, type[diffrax.AbstractSolver[Any]]]":
    """Returns diffrax's explicit solvers: an implicit one solves d equations a step, with unknown network calls."""
    import diffrax

    explicit = (diffrax.AbstractERK, diffrax.Euler)
    classes = {name: value for name, value in vars(diffrax).items() if isinstance(value, type)}
    return {
        name: value
        for name, value in classes.items()
        if issubclass(value, explicit) and not name.startswith("Abstract")
    }


_TIGHT, _REFINED_STEPS = 1e-5, 4096
_FIRST_STEP = 0.005  # of the range: short enough to be accepted; the next may be 10 times as long


class Integrator(eqx.Module):
    """An ODE solver with `steps` equal steps in gamma, or with steps chosen by the tolerances if `steps` is 0.

    A step's error is within atol + rtol |value|: the root mean square over the pixels of z, and the log density, in
    nats per dimension. Tolerances are arrays, so that another one compiles nothing.
    """

    solver: str = eqx.field(static=True)
    rtol: Scalar
    atol: Scalar
    steps: int = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        import diffrax

        if self.solver not in solvers():
            known = sorted(solvers())
            raise RecipeError(
                f'solver = "{self.solver}": expected an explicit Runge-Kutta solver of diffrax: '
                f"{', '.join(known)}.{nearest(self.solver, known)}"
            )
        if not self.steps and not issubclass(solvers()[self.solver], diffrax.AbstractAdaptiveSolver):
            raise RecipeError(
                f'solver = "{self.solver}" does not estimate its error, which step_size = '
                '"adaptive" needs. Set step_size = "constant" (of a sampler: solver_steps), or take Tsit5.'
            )

    def describe(self) -> str:
        """Returns the solver's name with its steps or tolerances."""
        how = f"{self.steps} steps" if self.steps else f"rtol {float(self.rtol):.0e}, atol {float(self.atol):.0e}"
        return f"{self.solver}, {how}"

    def refined(self) -> "Integrator":
        """Returns this integrator with a tenth of the tolerances, at most 1e-5.

        The cap is there because a tenth of a very loose tolerance may still accept every step.
        """
        solver = "Tsit5" if self.steps else self.solver
        rtol, atol = (jnp.minimum(jnp.inf if self.steps else t / 10, _TIGHT) for t in (self.rtol, self.atol))
        return Integrator(solver, rtol, atol, 0, max(self.max_steps, _REFINED_STEPS))

    def solve(
        self, field: Callable[[Any, State, Any], State], start: Scalar, end: Scalar, state: State, args: object
    ) -> "diffrax.Solution":
        """Solves d state/dgamma = field(gamma, state, args) from `start` to `end`.

        The solution's times are shares of the way, from 0 to 1. If the solver stops early, its `result` says why.
        """
        import diffrax

        def of_share(share: Any, state: State, args: Any) -> State:
            return jax.tree.map(lambda rate: (end - start) * rate, field(start + (end - start) * share, state, args))

        if self.steps:
            controller: Any = diffrax.ConstantStepSize()
        else:
            controller = diffrax.PIDController(rtol=self.rtol, atol=self.atol, norm=_largest_error)
        return diffrax.diffeqsolve(
            diffrax.ODETerm(of_share),
            solvers()[self.solver](),
            # Numbers: diffrax checks arrays in Python, and JAX keeps no compiled function that calls Python.
            0.0,
            1.0,
            1 / self.steps if self.steps else _FIRST_STEP,
            state,
            args,
            stepsize_controller=controller,
            adjoint=diffrax.ForwardMode(),  # nothing is differentiated: plain loops
            max_steps=self.steps or self.max_steps,
            throw=False,
        )

    def calls(self, steps: Int[Array, ""]) -> Int[Array, ""]:
        """Returns the number of evaluations of the field in `steps` steps; rejecting the first step adds one."""
        tableau = getattr(solvers()[self.solver], "tableau", None)
        stages, reused = (tableau.num_stages, int(tableau.fsal)) if tableau else (1, 0)
        return reused + (stages - reused) * steps


def _largest_error(scaled: State) -> Scalar:
    # A joint mean over z and the log density would allow the latter an error of sqrt(d) times the tolerance.
    z, density = scaled
    return jnp.maximum(jnp.sqrt((z**2).mean()), jnp.abs(density))
