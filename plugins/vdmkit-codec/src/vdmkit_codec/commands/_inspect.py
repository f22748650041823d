# SPDX-License-Identifier: Apache-2.0
"""`vdmkit inspect`: shows the contents of a .vdmz file."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli import AsJson

File = Annotated[Path, typer.Argument(metavar="FILE.vdmz", help="- reads it from standard input.")]
Salvage = Annotated[bool, typer.Option("--salvage", help="Inspect the undamaged part of a damaged file.")]


def inspect(file: File, salvage: Salvage = False, as_json: AsJson = False) -> None:
    """Show the contents of a compressed file, and where its bits went. It reads every chunk, without a checkpoint."""
    from vdmkit_codec.container import inspect as inspect_file

    given = sys.stdin.buffer.read() if file == Path("-") else file
    found = inspect_file(given, salvage=salvage, name="-")
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else str(found))
