# SPDX-License-Identifier: Apache-2.0
"""`vdmkit inspect`: what a .vdmz file says of itself."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import AsJson

File = Annotated[Path, typer.Argument(metavar="FILE.vdmz")]
Salvage = Annotated[bool, typer.Option("--salvage", help="Look at what is undamaged of a damaged file.")]


def inspect(file: File, salvage: Salvage = False, as_json: AsJson = False) -> None:
    """Show what a compressed file is of, and where its bits went. It takes no checkpoint, and reads every chunk."""
    from vdmkit.container import inspect as inspect_file

    found = inspect_file(file, salvage=salvage)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else str(found))
