# SPDX-License-Identifier: Apache-2.0
"""`vdmkit sample`: draws images from a trained run."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._component import Grid, Kernel, component, steps_of
from vdmkit.cli._options import Checkpoint, Overrides, PluginFiles, Step, Steps, Trust, as_override, with_steps
from vdmkit.errors import RecipeError

Number = Annotated[int, typer.Option("-n", min=1, help="How many images.")]
Output = Annotated[Path, typer.Option("-o", help="A .png for a grid, or a .npy of uint8 levels (n, h, w, c).")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Default: the recipe's.")]


def sample(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    number: Number = 64,
    output: Output = Path("samples.png"),
    steps: Steps = None,
    kernel: Kernel = None,
    grid: Grid = None,
    seed: Seed = None,
) -> None:
    """Draw samples from a run: the first n of an endless sequence that the seed defines, up to float32 rounding."""
    if output.suffix not in (".png", ".npy"):
        raise RecipeError(f"-o {output}: expected a name that ends in .png or .npy.")
    if not output.parent.is_dir():
        raise RecipeError(f"-o {output}: there is no folder {output.parent}. Make it, or choose another.")
    on_grid = component("--grid", grid) if grid else {}
    overrides = with_steps(overrides, steps or steps_of(on_grid), "--steps" if steps else "--grid")
    overrides += [as_override(f"--grid {grid}", "sampling.grid", on_grid)] if on_grid else []
    reverse = component("--kernel", kernel) if kernel else {}
    overrides += [as_override(f"--kernel {kernel}", "sampling.sampler.kernel", reverse)] if reverse else []
    import jax
    import numpy as np

    from vdmkit.assembly import build_sampling
    from vdmkit.distributed import is_first, own_folder
    from vdmkit.files import whole_file
    from vdmkit.recipe import drawn_by
    from vdmkit.report import grid as grid_of
    from vdmkit.report import write_png
    from vdmkit.run import load_run
    from vdmkit.sampling import draw_samples

    run = load_run(own_folder(checkpoint), overrides, plugins, step, trust=trust)
    if not steps and steps_of(on_grid) and run.recipe.sampling.end == "image":
        # the step to the image comes after the steps of the grid
        sampling = replace(run.recipe.sampling, steps=run.recipe.sampling.steps + 1)
        run = replace(run, recipe=replace(run.recipe, sampling=sampling))
    model = run.weighted(run.recipe.evaluation.weights)
    key = jax.random.key(run.recipe.seed if seed is None else seed)
    images = draw_samples(model, build_sampling(run.recipe), number, key=key, progress="auto")
    if not is_first():
        return
    if output.suffix == ".npy":
        with whole_file(output) as part, part.open("wb") as file:
            np.save(file, images)
    else:
        write_png(grid_of(images, model.observation.levels), output)
    drawn = f"{number} sample{'s' * (number != 1)}"
    typer.echo(f"{output}: {drawn} of the checkpoint of step {run.step:,}, by {drawn_by(run.recipe)}")
