# SPDX-License-Identifier: Apache-2.0
"""`vdmkit data`: packs images of any source into files that need not fit in memory, and verifies such files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vdmkit.cli._options import Overrides, PluginFiles, RecipeName, command

if TYPE_CHECKING:
    from vdmkit.data import Sidecar

Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The folder to make, or to continue.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `vdmkit data pack` made.")]
_COMPRESSED = "npy, or array_record, which compresses each image without loss."
FileFormat = Annotated[Literal["npy", "array_record"], typer.Option("--format", help=_COMPRESSED)]
Megabytes = Annotated[int, typer.Option("--shard-mb", min=1, max=1000, help="Size of a file, in MB.")]


def pack(
    recipe: RecipeName,
    out: Out,
    overrides: Overrides,
    plugins: PluginFiles,
    file_format: FileFormat = "npy",
    megabytes: Megabytes = 256,
) -> None:
    """Pack the images of a recipe for the source `packed`, which reads them from disk when they are needed."""
    from vdmkit.data import pack as pack_images
    from vdmkit.recipe import load_recipe

    source = load_recipe(recipe, overrides, plugins).data.build()
    how = {"file_format": file_format, "shard_bytes": megabytes * 10**6}
    sidecar = pack_images(source, out, progress="auto", **how)
    use = "--set", "data=packed", "--set", f"data.path={out.absolute()}"
    typer.echo(f"{_facts(out, sidecar)}\n  next  {command('run', recipe, *use)}")


def verify(folder: Folder) -> None:
    """Read all files of packed images, and report whether every bit is as it was written."""
    from vdmkit.data import verify as verify_images

    typer.echo(f"{_facts(folder, verify_images(folder, progress='auto'))}\nEvery file is as it was written.")


def _facts(folder: Path, sidecar: "Sidecar") -> str:
    size = f"{len(sidecar.files)} files of {sidecar.format}, {sum(file.bytes for file in sidecar.files) / 1e6:,.1f} MB"
    return f"{folder}: {size}\n  train  {sidecar.train.identity}\n  test   {sidecar.test.identity}"
