# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share, and the command lines that messages show.

A component given by an option is either its name or a TOML file of its keys, such as `vdmkit study` writes. The options
of a likelihood estimator become overrides of the run's recipe.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdmkit.errors import RecipeError
from vdmkit.io import TooMuch, check_sealed_text, not_a_file

if TYPE_CHECKING:
    from vdmkit.experiments.load import Run
    from vdmkit.registry import Choice

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A TOML file, or a name that `vdmkit list recipe` shows; a file takes precedence."
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        default_factory=list,
        show_default=False,
        help="Override a key of the recipe. May be repeated.",
    ),
]
PluginFiles = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        default_factory=list,
        show_default=False,
        help="A Python file that registers components. May be repeated.",
    ),
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps. Default: the recipe's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")]
Checkpoint = Annotated[Path, typer.Option("--ckpt", metavar="RUN", help="A run folder.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Execute plugin files of RUN though no run of yours on this machine had them.")
]
Step = Annotated[int | None, typer.Option("--checkpoint-step", min=0, help="A checkpoint's step. Default: the newest.")]


def with_steps(overrides: list[str], steps: int | None, option: str = "--steps") -> list[str]:
    """Adds the sampling steps to the overrides. Raises RecipeError if the overrides contain them already.

    `option` is the option that determined the steps; the gammas of a `--grid` fix their number.
    """
    if steps is None:
        return overrides
    if any(text.partition("=")[0].strip() == "sampling.steps" for text in overrides):
        raise RecipeError(f"{option} and --set sampling.steps set the same key. Omit one of them.")
    return [*overrides, as_override(f"--steps {steps}" if option == "--steps" else option, "sampling.steps", steps)]


def as_override(words: str, key: str, value: Any) -> str:
    """Returns the recipe override that an option stands for; messages show the option as written in `words`."""
    from vdmkit.recipes.document import Override
    from vdmkit.recipes.validation import toml_text

    return Override(f"{key}={toml_text(value)}", words)


def command(*words: str | Path) -> str:
    """Returns a command line as this user would type it: with `uv run`, `vdmkit` is not on the shell's PATH."""
    program = ("uv", "run", "vdmkit") if "UV_RUN_RECURSION_DEPTH" in os.environ else ("vdmkit",)
    return shlex.join([*program, *map(str, words)])


Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="NAME|FILE.toml",
        help="Reverse kernel of T steps: a name that `vdmkit list kernel` shows, or a file that `vdmkit study` saves. "
        "Default: that of training if T is, or if it has learned variances; else gaussian.",
    ),
]


def grid_option(default: str) -> Any:
    """Returns the option `--grid`; `default` describes the behaviour without it."""
    where = "a name that `vdmkit list grid` shows, or a file that `vdmkit study` saves"
    text = f"The gammas of T steps: {where}. Default: {default}."
    return typer.Option("--grid", metavar="NAME|FILE.toml", help=text)


Grid = Annotated[str | None, grid_option("that of training if T is, or even in t")]


def component(option: str, name: str) -> dict[str, Any]:
    """Returns the name and keys of a component. Raises RecipeError if the file does not describe one."""
    if not name.endswith(".toml"):
        return {"name": name}
    if reason := not_a_file(Path(name)):
        raise RecipeError(f"{option} {name}: {reason}. Expected a component as `vdmkit study` saves it.")
    from vdmkit.recipes.document import parse_toml, read_toml

    try:
        text = read_toml(Path(name))
        check_sealed_text(text)
        table = parse_toml(text)
    except (OSError, ValueError, TooMuch) as error:
        raise RecipeError(f"{option} {name}: cannot be read: {error}.") from error
    if not isinstance(table.get("name"), str):
        raise RecipeError(f"{option} {name}: without a name. Expected a component as `vdmkit study` saves it.")
    return table


def of_estimator(steps: int | None, kernel: str | None, grid: str | None) -> list[str]:
    """Returns the options that choose the steps of a bound, as overrides of the recipe."""
    names = {"kernel": kernel, "grid": grid}
    parts = {key: component(f"--{key}", name) for key, name in names.items() if name is not None}
    words, on_grid = f"--steps {steps}", steps_of(parts.get("grid", {}))
    if steps is None and on_grid is not None:
        words, steps = f"--grid {grid}", on_grid
    chosen = [] if steps is None else [as_override(words, "likelihood.estimator.steps", steps)]
    return chosen + [
        as_override(f"--{key} {names[key]}", f"likelihood.estimator.{key}", table) for key, table in parts.items()
    ]


def steps_of(table: dict[str, Any]) -> int | None:
    """Returns the number of steps of a grid, or None if its keys do not determine it."""
    listed = table.get("gammas", table.get("times"))
    return len(listed) - 1 if isinstance(listed, list) else None


Estimator = Annotated[str | None, typer.Option("--estimator", help="bound, ode or importance. Default: the recipe's.")]
BoundSteps = Annotated[
    int | None,
    typer.Option("--steps", help="T of a bound; 0 is continuous time. Default: as trained (importance: then 100)."),
]
SolverSteps = Annotated[
    int | None, typer.Option("--solver-steps", min=1, help="Constant steps of the ode. Default: its tolerances choose.")
]


def shorthands(**given: object) -> list[str]:
    """Returns the `likelihood` overrides of these options, given by name; None is an option that was not given."""
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
    """Loads a run with its estimator. `named` and `of_bound` are the overrides from options."""
    from vdmkit.experiments.load import load_run
    from vdmkit.multihost import own_folder

    run = load_run(own_folder(checkpoint), [*named, *overrides], plugins, step, trust=trust)
    of_bound = [*_own_kernel(run), *of_bound]
    of_steps = _of_steps(run.recipe.likelihood.estimator, of_bound, solver_steps)
    if not of_steps:
        return run
    return replace(run, recipe=run.read_recipe([*named, *of_steps, *overrides]))


def _own_kernel(run: "Run") -> list[str]:
    """Returns the override that gives a different T-step estimator the run's reverse kernel, such as iDDPM's clip.

    The kernel p(z_s | z_t) is part of a T-step model, so a different kernel is a different model.
    """
    from vdmkit.recipes.schema import resolved

    chosen = run.recipe.likelihood.estimator
    if "kernel" not in chosen.params or chosen.params["kernel"] is not None:
        return []
    recipe = run.read_recipe([])
    if recipe.likelihood.estimator.params.get("kernel") is None:
        return []
    table = resolved(recipe)["likelihood"]["estimator"]["kernel"]
    return [as_override(f"--estimator {chosen.name}", "likelihood.estimator.kernel", table)]


def _of_steps(estimator: "Choice", of_bound: list[str], solver_steps: int | None) -> list[str]:
    """Returns the overrides of T and of the solver's steps. Raises RecipeError if the estimator does not have them."""
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
