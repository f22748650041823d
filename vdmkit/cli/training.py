# SPDX-License-Identifier: Apache-2.0
"""Commands that make runs and data: `run`, `convert`, `import` and `data`.

- `run` trains, evaluates and samples a recipe.
- `convert` converts a trained model to a different path or prediction.
- `import` makes a run folder from a published checkpoint, or lists the tensors of any checkpoint.
- `data` packs images of any source into files that need not fit in memory, and verifies such files.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vdmkit.cli.options import AsJson, Checkpoint, Overrides, PluginFiles, RecipeName, Step, Trust, command
from vdmkit.errors import RecipeError

if TYPE_CHECKING:
    from vdmkit.data.packed import Metadata
    from vdmkit.importers.formats import TensorFacts

_DEFAULT = "The run folder. Default: runs/ and the last part of RECIPE: runs/edm for cifar10/edm."
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help=_DEFAULT)]


Fsdp = Annotated[
    bool, typer.Option("--fsdp", help="Divide the training state over all devices; by default each has a copy.")
]


def run(recipe: RecipeName, overrides: Overrides, plugins: PluginFiles, out: Out = None, fsdp: Fsdp = False) -> None:
    """Train a recipe, report its test bpd, and draw samples. Run again to continue."""
    from vdmkit.recipes.loading import load_for_run

    checked, text, path = load_for_run(recipe, out, overrides, plugins)
    import jax

    from vdmkit.experiments.folder import RunFolder
    from vdmkit.experiments.run import run_recipe
    from vdmkit.multihost import own_folder

    folder = RunFolder(own_folder(path), path)
    devices = jax.device_count() if fsdp else 1
    evaluation = run_recipe(checked, text, folder, plugins, progress="auto", fsdp=devices)
    samples = f"{folder.samples}  (left: samples, right: real)" if folder.samples.exists() else "none: not finite"
    typer.echo(
        f"\n{evaluation}\n\n"
        f"  samples      {samples}\n"
        f"  checkpoints  {folder.checkpoints}\n"
        f"  evaluation   {folder.evaluation}\n"
        f"  next         {command('sample', '--ckpt', folder.path, '-n', '64', '-o', 'grid.png')}\n"
        f"               {command('likelihood', '--ckpt', folder.path)}"
    )


To = Annotated[
    str, typer.Option("--to", metavar="RECIPE", help="Recipe of the new path and prediction: a file, or a name.")
]
ConvertedOut = Annotated[Path, typer.Option("-o", "--out", metavar="NEW", help="The run folder to make.")]


def convert(
    checkpoint: Checkpoint, to: To, out: ConvertedOut, plugins: PluginFiles, step: Step = None, trust: Trust = False
) -> None:
    """Convert a trained model to another path or prediction, without training, and check that its bound is the same."""
    from vdmkit.experiments.conversion import convert
    from vdmkit.experiments.folder import RunFolder
    from vdmkit.experiments.load import load_run
    from vdmkit.recipes.loading import load_recipe

    run = load_run(checkpoint, plugins=plugins, step=step, trust=trust)
    target = load_recipe(to, plugins=plugins, kept=run.folder.kept_plugins())
    found = convert(run, target, RunFolder(out), where=f"--to {to}")
    typer.echo(f"{found}\n  next  {command('likelihood', '--ckpt', out)}")


ForeignCheckpoint = Annotated[
    Path, typer.Argument(metavar="FILE", help="A checkpoint of another codebase, or its folder.")
]
Config = Annotated[
    Path | None, typer.Option("--config", help="The authors' configuration, as JSON; some files hold their own.")
]
Family = Annotated[
    str | None,
    typer.Option("--family", metavar="NAME", help="Its importer, one of `vdmkit list importer`. Default: by the file."),
]
ImportedOut = Annotated[Path | None, typer.Option("-o", "--out", metavar="RUN", help="The run folder to make.")]
List = Annotated[bool, typer.Option("--list", help="Show the tensors of the file, and make nothing.")]


def import_checkpoint(
    checkpoint: ForeignCheckpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    config: Config = None,
    family: Family = None,
    out: ImportedOut = None,
    only_list: List = False,
    as_json: AsJson = False,
) -> None:
    """Make a run folder from a published checkpoint, or list the tensors of any checkpoint."""
    if only_list:
        return _list(checkpoint, as_json)
    if as_json:
        raise RecipeError("--json is for --list. Omit it, or add --list.")
    if out is None:
        raise RecipeError("-o missing: a new run folder. Or use --list.")
    from vdmkit.experiments.folder import RunFolder
    from vdmkit.experiments.importing import import_checkpoint

    imported = import_checkpoint(checkpoint, RunFolder(out), plugins, config=config, overrides=overrides, family=family)
    weights = "raw and averaged parameters" if imported.has_raw else "one set of parameters, as raw and averaged ones"
    remarks = "".join(f"  {remark}\n" for remark in imported.remarks)
    typer.echo(
        f"{out}: {imported.family}, the authors' model at step {int(imported.state.step):,}, {weights}.\n{remarks}"
        f"  next  {command('likelihood', '--ckpt', out)}\n"
        f"        {command('evaluate', '--ckpt', out)}   (the bound of its training objective, by fewer draws)\n"
        f"        {command('run', out / 'resolved.toml', '--out', out)}   (to train on)"
    )


def _list(checkpoint: Path, as_json: bool) -> None:
    from vdmkit.importers.formats import list_tensors, read_checkpoint

    content = read_checkpoint(checkpoint)
    tensors = list_tensors(content.tree)
    if as_json:
        facts = [asdict(one) | {"sum": one.sum if math.isfinite(one.sum) else None} for one in tensors]
        typer.echo(json.dumps({"file": str(checkpoint), "format": content.format, "tensors": facts}, indent=2))
    else:
        typer.echo(f"{checkpoint}: {content.format}, {len(tensors):,} tensors\n{_table(tensors)}")


def _table(tensors: list["TensorFacts"]) -> str:
    rows = [("name", "shape", "dtype", "sum")]
    rows += [(one.printable, str(one.shape), one.dtype, f"{one.sum:.12g}") for one in tensors]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


PackedOut = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The folder to make.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `vdmkit data pack` made.")]


def pack(recipe: RecipeName, out: PackedOut, overrides: Overrides, plugins: PluginFiles) -> None:
    """Pack the images of a recipe for the source `packed`, which reads them from disk when they are needed."""
    from vdmkit.data.packed import pack as pack_images
    from vdmkit.recipes.loading import load_recipe

    source = load_recipe(recipe, overrides, plugins).data.build()
    metadata = pack_images(source, out, progress="auto")
    use = "--set", "data=packed", "--set", f"data.path={out.absolute()}"
    typer.echo(f"{_facts(out, metadata)}\n  next  {command('run', recipe, *use)}")


def verify(folder: Folder) -> None:
    """Read all files of packed images, and report whether every bit is as it was written."""
    from vdmkit.data.packed import verify as verify_images

    typer.echo(f"{_facts(folder, verify_images(folder, progress='auto'))}\nEvery file is as it was written.")


def _facts(folder: Path, metadata: "Metadata") -> str:
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{folder}: {size / 1e6:,.1f} MB\n  train  {metadata.train}\n  test   {metadata.test}"
