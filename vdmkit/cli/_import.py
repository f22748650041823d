# SPDX-License-Identifier: Apache-2.0
"""`vdmkit import`: makes a run folder from a checkpoint of the authors' released code."""

from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import Overrides, command

Checkpoint = Annotated[Path, typer.Argument(metavar="OFFICIAL.flax", help="A Flax checkpoint of google-research/vdm.")]
Config = Annotated[Path, typer.Option("--config", help="Its VDMConfig fields, as JSON.")]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="The run folder to make.")]


def import_checkpoint(checkpoint: Checkpoint, config: Config, out: Out, overrides: Overrides) -> None:
    """Make a run folder from a checkpoint of the authors' released code."""
    from vdmkit.run import RunFolder, import_official

    step = import_official(checkpoint, config, RunFolder(out), overrides)
    typer.echo(
        f"{out}: the authors' model at step {step:,}, raw and averaged parameters.\n"
        f"  next  {command('evaluate', '--ckpt', out)}\n"
        f"        {command('run', out / 'resolved.toml', '--out', out)}   (to train on)"
    )
