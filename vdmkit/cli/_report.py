# SPDX-License-Identifier: Apache-2.0
"""`vdmkit report`: one self-contained page of what runs hold."""

from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import Trust
from vdmkit.errors import RecipeError

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")]
Output = Annotated[Path, typer.Option("-o", metavar="FILE.html", help="The page to write.")]


def report(runs: Runs, output: Output = Path("report.html"), trust: Trust = False) -> None:
    """Write a page of a run's numbers, curves, samples, recipe and commands; of several, with their differences."""
    if output.suffix != ".html" or output.is_dir():
        raise RecipeError(f"-o {output}: expected the name of a file that ends in .html.")
    if not output.parent.is_dir():
        raise RecipeError(f"-o {output}: there is no folder {output.parent}. Make it, or choose another.")
    from vdmkit.run import report_runs

    page = report_runs(runs, trust=trust, progress="auto")
    page.write(output)
    typer.echo(f"{output}: {len(page.html.encode()) / 1024:,.0f} KiB, of {', '.join(map(str, runs))}")
