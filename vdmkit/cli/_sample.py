# SPDX-License-Identifier: Apache-2.0
"""`vdmkit sample`: images drawn from a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._component import Grid, Kernel, component, override, steps_of
from vdmkit.cli._options import Checkpoint, Overrides, PluginFiles, Step
from vdmkit.errors import RecipeError

Number = Annotated[int, typer.Option("-n", min=1, help="How many images.")]
Output = Annotated[Path, typer.Option("-o", help="A .png for a grid, or a .npy of uint8 levels (n, h, w, c).")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps. Default: the recipe's.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Default: the recipe's.")]


def sample(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    number: Number = 64,
    output: Output = Path("samples.png"),
    steps: Steps = None,
    kernel: Kernel = None,
    grid: Grid = None,
    seed: Seed = None,
) -> None:
    """Draw samples from a run; the first n of an endless sequence that the seed defines, up to float32 rounding."""
    if output.suffix not in (".png", ".npy"):
        raise RecipeError(f"-o {output}: expected a name that ends in .png or .npy.")
    if not output.parent.is_dir():
        raise RecipeError(f"-o {output}: there is no folder {output.parent}. Make it, or choose another.")
    import numpy as np

    from vdmkit.files import whole_file
    from vdmkit.report import grid as grid_of
    from vdmkit.report import write_png
    from vdmkit.run import Plan, draw_samples, load_run, procedure_of

    on_grid = component("--grid", grid) if grid else {}
    given = [override("sampling.grid", on_grid)] if on_grid else []
    given += [override("sampling.sampler.kernel", component("--kernel", kernel))] if kernel else []
    run = load_run(checkpoint, [*given, *overrides], plugins, step)
    settings = run.recipe.sampling
    model = run.model(run.recipe.evaluation.weights)
    plan = Plan(number, steps or steps_of(on_grid) or settings.steps)
    seed = run.recipe.seed if seed is None else seed
    images = draw_samples(model, procedure_of(run.recipe), plan, seed=seed)
    if output.suffix == ".npy":
        with whole_file(output) as part, part.open("wb") as file:
            np.save(file, images)
    else:
        write_png(grid_of(images, model.observation.levels), output)
    typer.echo(f"{number} samples of {plan.steps} steps, step {run.step:,}: {output}")
