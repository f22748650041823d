# SPDX-License-Identifier: Apache-2.0
"""The options that choose an estimator of likelihoods, and the run that they measure."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vdmkit.cli._options import as_override
from vdmkit.errors import RecipeError

if TYPE_CHECKING:
    from vdmkit.registry import Choice
    from vdmkit.run import Run

Estimator = Annotated[str | None, typer.Option("--estimator", help="bound, ode or importance. Default: the recipe's.")]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="T of a bound; 0 is continuous time. Default: as trained (importance: then 100)."),
]
SolverSteps = Annotated[
    int | None, typer.Option("--solver-steps", min=1, help="Constant steps of the ode. Default: its tolerances choose.")
]


def shorthands(**given: object) -> list[str]:
    """Returns the overrides of `likelihood` that options stand for, by their names; None is an option not given."""
    keys = {name: "estimator.name" if name == "estimator" else name for name in given}
    return [
        as_override(f"--{name} {value}", f"likelihood.{keys[name]}", value)
        for name, value in given.items()
        if value is not None
    ]


def run_to_measure(
    checkpoint: Path,
    named: Sequence[str],
    overrides: Sequence[str],
    plugins: Sequence[Path],
    step: int | None,
    of_bound: list[str],
    solver_steps: int | None,
    *,
    trust: bool,
) -> "Run":
    """Loads a run with its estimator: `named` and `of_bound` are the overrides that options stand for."""
    from vdmkit.distributed import own_folder
    from vdmkit.run import load_run

    run = load_run(own_folder(checkpoint), [*named, *overrides], plugins, step, trust=trust)
    of_bound = [*_own_kernel(run), *of_bound]
    of_steps = _of_steps(run.recipe.likelihood.estimator, of_bound, solver_steps)
    if not of_steps:
        return run
    return replace(run, recipe=run.read_recipe([*named, *of_steps, *overrides]))


def _own_kernel(run: "Run") -> list[str]:
    """Returns the override that gives another estimator of steps the kernel of the run's own, as with iDDPM's clip.

    By its kernel p(z_s | z_t) a model of T steps is another model.
    """
    from vdmkit.recipe import resolved

    chosen = run.recipe.likelihood.estimator
    if "kernel" not in chosen.params or chosen.params["kernel"] is not None:
        return []
    recipe = run.read_recipe([])
    if recipe.likelihood.estimator.params.get("kernel") is None:
        return []
    table = resolved(recipe)["likelihood"]["estimator"]["kernel"]
    return [as_override(f"--estimator {chosen.name}", "likelihood.estimator.kernel", table)]


def _of_steps(estimator: "Choice", of_bound: list[str], solver_steps: int | None) -> list[str]:
    """Returns the overrides of T steps and of a solver's. Raises RecipeError if they are of another estimator."""
    solves = "solver_steps" in estimator.component.parameters
    if of_bound and solves:
        raise RecipeError(
            f"--steps, --kernel and --grid choose the diffusion steps of a bound, and the estimator {estimator.name} "
            "has none. The constant steps of its solver are --solver-steps."
        )
    if solver_steps and not solves:
        raise RecipeError(f"--solver-steps: the estimator {estimator.name} solves no ODE. T of a bound is --steps.")
    words, key = f"--solver-steps {solver_steps}", "likelihood.estimator.solver_steps"
    return [*of_bound, *([as_override(words, key, solver_steps)] if solver_steps else [])]
