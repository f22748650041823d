# SPDX-License-Identifier: Apache-2.0
"""ODE solver in gamma, built on diffrax, with constant or adaptive steps.

A solve can be split over several calls and gives the same steps as a single call. diffrax is imported on first use,
because the import takes half a second and training does not need it.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from vdmkit.errors import RecipeError
from vdmkit.process import Image
from vdmkit.registry import nearest
from vdmkit.schedules import Scalar

if TYPE_CHECKING:
    import diffrax

State = tuple[Image, Scalar]  # z, and the log density per dimension
Field = Callable[[Any, State, Any], State]


@functools.cache
def solvers() -> "dict[str, type[diffrax.AbstractSolver[Any]]]":
    """Returns diffrax's explicit solvers by name.

    Implicit solvers are excluded: they solve a system of d equations in every step, with an unknown number of network
    calls.
    """
    import diffrax

    explicit = (diffrax.AbstractERK, diffrax.Euler)
    classes = {name: value for name, value in vars(diffrax).items() if isinstance(value, type)}
    return {
        name: value
        for name, value in classes.items()
        if issubclass(value, explicit) and not name.startswith("Abstract")
    }


_TIGHT, _REFINED_STEPS = 1e-5, 4096
_FIRST_STEP = 0.01  # in gamma; short enough to be accepted, and the next step may be 10 times as long


class SolverState(eqx.Module):
    """State of a partial solve: fraction of the interval done, current value, step count, controller and solver state.

    `controller` is the fraction at which the next step ends, with the state of diffrax's step size controller.
    """

    share: Scalar
    state: State
    steps: Int[Array, ""]
    controller: tuple[Scalar, Any]
    solver: Any

    @property
    def finished(self) -> Bool[Array, ""]:
        """Returns whether the solve has reached the end of the interval."""
        return self.share == 1


class Integrator(eqx.Module):
    """An ODE solver with `steps` equal steps in gamma, or with adaptive steps if `steps` is 0.

    An adaptive step keeps two errors within atol + rtol |value|: the root mean square error over the pixels of z, and
    the error of the log density in nats per dimension. Tolerances are arrays, so changing them does not recompile.
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

    @property
    def most_steps(self) -> int:
        """Returns the number of constant steps, or the largest number of adaptive steps."""
        return self.steps or self.max_steps

    def describe(self) -> str:
        """Returns the name of the solver with its number of steps or its tolerances."""
        how = f"{self.steps} steps" if self.steps else f"rtol {float(self.rtol):.0e}, atol {float(self.atol):.0e}"
        return f"{self.solver}, {how}"

    def refined(self) -> "Integrator":
        """Returns an adaptive integrator with a tenth of the tolerances, at most 1e-5.

        The cap is needed because a tenth of a very loose tolerance may still accept every step.
        """
        solver = "Tsit5" if self.steps else self.solver
        rtol, atol = (jnp.minimum(jnp.inf if self.steps else t / 10, _TIGHT) for t in (self.rtol, self.atol))
        return Integrator(solver, rtol, atol, 0, max(self.max_steps, _REFINED_STEPS))

    def solve(self, field: Field, start: Scalar, end: Scalar, state: State, args: object) -> "SolverState":
        """Solves d state/dgamma = field(gamma, state, args) from `start` to `end`, in at most `most_steps` steps."""
        begun = self.begin(field, start, end, state, args)
        return self.resume(field, start, end, begun, args, steps=self.most_steps)

    def begin(self, field: Field, start: Scalar, end: Scalar, state: State, args: object) -> "SolverState":
        """Returns the state of a solve before its first step."""
        import diffrax

        solver, term = solvers()[self.solver](), diffrax.ODETerm(_of_share(field, start, end))
        zero, one, order = jnp.zeros_like(start), jnp.ones_like(start), solver.error_order(term)
        dt = one / self.steps if self.steps else jnp.minimum(_FIRST_STEP / jnp.abs(end - start), 1)
        following, controlled = self._controller().init(term, zero, one, state, dt, args, solver.func, order)
        return SolverState(
            zero, state, jnp.zeros((), int), (following, controlled), solver.init(term, zero, following, state, args)
        )

    def resume(
        self, field: Field, start: Scalar, end: Scalar, solve: "SolverState", args: object, *, steps: int
    ) -> "SolverState":
        """Makes at most `steps` more steps; a solve that has ended is returned unchanged.

        Several calls make the same steps as a single call. Start and end are not checked at run time: diffrax would use
        a Python callback for that, and JAX's persistent cache does not store functions with callbacks.
        """
        import diffrax

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(_of_share(field, start, end)),
            solvers()[self.solver](),
            jnp.where(self.is_going(solve), solve.share, 1.0),
            1.0,
            None,
            solve.state,
            args,
            saveat=diffrax.SaveAt(t1=True, solver_state=True, controller_state=True),
            stepsize_controller=_resumed()(self._controller(), solve.controller),
            solver_state=solve.solver,
            adjoint=diffrax.ForwardMode(),  # plain loops, because no gradient is needed
            max_steps=steps,
            throw=False,
        )
        assert solution.ts is not None
        assert solution.controller_state is not None
        share = jnp.where(self.is_going(solve), solution.ts[-1], solve.share)
        made = solve.steps + solution.stats["num_steps"]
        state = jax.tree.map(lambda saved: saved[-1], solution.ys)
        return SolverState(share, state, made, solution.controller_state, solution.solver_state)

    def is_going(self, solve: "SolverState") -> Bool[Array, ""]:
        """Returns whether a solve can continue: not at the end, steps left, and the next step of positive length."""
        following, _ = solve.controller
        return (solve.share < 1) & (solve.steps < self.most_steps) & (following > solve.share)

    def _controller(self) -> Any:
        import diffrax

        if self.steps:
            return diffrax.ConstantStepSize()
        return diffrax.PIDController(rtol=self.rtol, atol=self.atol, norm=_largest_error)

    def calls(self, steps: Int[Array, ""]) -> Int[Array, ""]:
        """Returns the number of evaluations of the field in `steps` steps; one more if the first step is rejected."""
        tableau = getattr(solvers()[self.solver], "tableau", None)
        stages, reused = (tableau.num_stages, int(tableau.fsal)) if tableau else (1, 0)
        return reused + (stages - reused) * steps


def _largest_error(scaled: State) -> Scalar:
    # A joint mean over z and the log density would allow an error of the log density of sqrt(d) times the tolerance.
    z, density = scaled
    return jnp.maximum(jnp.sqrt((z**2).mean()), jnp.abs(density))


def _of_share(field: Field, start: Scalar, end: Scalar) -> Field:
    """Returns the field as a function of the fraction of the interval from `start` to `end`."""

    def rate(share: Any, state: State, args: Any) -> State:
        return jax.tree.map(lambda rate: (end - start) * rate, field(start + (end - start) * share, state, args))

    return rate


@functools.cache
def _resumed() -> Any:
    """Returns a step size controller class that resumes `inner` from the next step end and the state in `stand`."""
    import diffrax

    class Resumed(diffrax.AbstractStepSizeController):
        inner: Any
        solve: Any

        def wrap(self, direction: Any) -> Any:
            return self

        def init(
            self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, args: Any, func: Any, error_order: Any
        ) -> tuple[Any, Any]:
            return self.solve[0], self.solve

        def adapt_step_size(
            self,
            t0: Any,
            t1: Any,
            y0: Any,
            y1_candidate: Any,
            args: Any,
            y_error: Any,
            error_order: Any,
            controller_state: Any,
        ) -> tuple[Any, Any, Any, Any, Any, Any]:
            at, inner_state = (t0, t1, y0, y1_candidate, args, y_error, error_order), controller_state[1]
            kept, begins, ends, jumped, inner_state, result = self.inner.adapt_step_size(*at, inner_state)
            return kept, begins, ends, jumped, (ends, inner_state), result

    return Resumed
