# SPDX-License-Identifier: Apache-2.0
"""`vdmkit bench`: measures the speed of a recipe's training on this machine."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdmkit.cli._options import AsJson, Overrides, PluginFiles, RecipeName
from vdmkit.errors import DataError

if TYPE_CHECKING:
    from vdmkit.speed import Speed


def bench(
    recipe: RecipeName,
    overrides: Overrides,
    plugins: PluginFiles,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="How long steps are repeated.")] = 10,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE.json", help="What an earlier `bench --json` printed.")
    ] = None,
    profile: Annotated[int, typer.Option("--profile", min=0, help="Also write a trace of so many steps.")] = 0,
    folder: Annotated[Path, typer.Option("--trace", metavar="FOLDER", help="The folder of the trace.")] = Path("trace"),
    as_json: AsJson = False,
) -> None:
    """Measure compilation, steps, memory and the wait for data of a recipe's training, on random images."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a compilation is measured, not the reading of a kept one
    from vdmkit.devices import facts_of
    from vdmkit.recipe import load_recipe
    from vdmkit.speed import measure_speed

    checked, earlier = load_recipe(recipe, overrides, plugins), against and _read(against)
    speed = measure_speed(checked, seconds=seconds, profile=(profile, str(folder)) if profile else None)
    if as_json:
        typer.echo(json.dumps({"recipe": recipe, **facts_of(speed)}, indent=2))
    else:
        typer.echo(_text(recipe, speed))
    if earlier is not None:
        typer.echo(_comparison(speed, earlier), err=as_json)
    if profile:
        typer.echo(f"trace of {profile} steps in {folder}, for TensorBoard or Perfetto", err=True)


def _text(recipe: str, speed: "Speed") -> str:
    step, size = speed.step_seconds, speed.batch_size
    utilisation = "unknown peak" if speed.utilisation is None else f"{speed.utilisation:.1%} of the peak in bfloat16"
    flops = "not counted" if speed.flops is None else f"{speed.flops:.3g} a step, {utilisation}"
    rows = {
        "steps": f"{1 / step.value:.3g} a second (95%: {1 / step.high:.3g} to {1 / step.low:.3g})",
        "images": f"{size / step.value:.4g} a second, {size} a step",
        "compilation": f"{speed.compile_seconds:.1f} s",
        "waiting": f"{speed.waiting:.1%} of the time, for a batch and its way to the device",
        "operations": flops,
        "memory": f"{speed.peak_mib:,.0f} MiB at most",
        "parameters": f"{speed.parameters:,}",
        "computed in": str(speed.arithmetic),
    }
    return "\n".join([recipe, *(f"  {name:<13} {words}" for name, words in rows.items())])


def _read(path: Path) -> Any:
    """Returns the time of a step in an earlier measurement. Raises DataError if the file is not one."""
    from vdmkit.files import read_json
    from vdmkit.speed import Median

    try:
        return Median(**read_json(path, dict[str, Any])["step_seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not what `vdmkit bench --json` prints ({error}).") from error


def _comparison(speed: "Speed", earlier: Any) -> str:
    ratio = earlier.over(speed.step_seconds)
    return f"{ratio.value:.3f} times as fast as before (95%: {ratio.low:.3f} to {ratio.high:.3f})"
