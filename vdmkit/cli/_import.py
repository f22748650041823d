# SPDX-License-Identifier: Apache-2.0
"""`vdmkit import`: makes a run folder from a published checkpoint, or lists the tensors of any."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vdmkit.cli._options import AsJson, Overrides, PluginFiles, command
from vdmkit.errors import RecipeError

if TYPE_CHECKING:
    from vdmkit.importers import TensorFacts

Checkpoint = Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint of another codebase, or its folder.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="The authors' configuration, as JSON; some files hold their own.")
]
Family = Annotated[
    str | None,
    typer.Option("--family", metavar="NAME", help="Its importer, one of `vdmkit list importer`. Default: by the file."),
]
Out = Annotated[Path | None, typer.Option("-o", "--out", metavar="RUN", help="The run folder to make.")]
List = Annotated[bool, typer.Option("--list", help="Show the tensors of the file, and make nothing.")]


def import_checkpoint(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    config: Config = None,
    family: Family = None,
    out: Out = None,
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
    from vdmkit.run import RunFolder, import_checkpoint

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
    from vdmkit.importers import list_tensors, read_checkpoint

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
