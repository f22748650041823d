# SPDX-License-Identifier: Apache-2.0
"""`vdmkit decompress`: restores images from a .vdmz file."""

from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli import Checkpoint, Overrides, PluginFiles, Step
from vdmkit.errors import RecipeError

File = Annotated[Path, typer.Argument(metavar="FILE.vdmz")]
Output = Annotated[Path, typer.Option("-o", metavar="FOLDER|FILE.npy", help="A new folder of PNG files, or one array.")]
Range = Annotated[str | None, typer.Option("--range", metavar="A:B", help="Images A to B - 1 only, counted from 0.")]
Batch = Annotated[
    int | None, typer.Option("--batch", min=1, help="Images in a call of the network. Default: as encoded.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Number of chunks decoded concurrently.")]
Previews = Annotated[
    int | None,
    typer.Option(
        "--preview-every",
        min=1,
        metavar="K",
        help="Write the model's estimate every K steps, as PNG, into FOLDER.previews.",
    ),
]
Salvage = Annotated[bool, typer.Option("--salvage", help="Decode the undamaged part of a damaged file.")]


def decompress(
    file: File,
    checkpoint: Checkpoint,
    output: Output,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    wanted: Range = None,
    batch: Batch = None,
    jobs: Jobs = 1,
    preview_every: Previews = None,
    salvage: Salvage = False,
) -> None:
    """Restore the images of a file exactly, with the run that compressed it."""
    if not output.name:
        raise RecipeError(f"-o {output}: expected the name of a new folder, or of a .npy.")
    from vdmkit.run import RunFolder, load_run
    from vdmkit_codec.codec import Preview, codec_of_file, images_of_file, step_of_file, write_images
    from vdmkit_codec.container import open_reader

    with open_reader(file, salvage=salvage) as reader:
        chosen = _range(wanted, reader.images)
        step = step_of_file(reader, RunFolder(checkpoint)) if step is None else step
        codec = codec_of_file(load_run(checkpoint, overrides, plugins, step), reader)
        preview = Preview(output.with_name(f"{output.stem}.previews"), preview_every) if preview_every else None
        damage = [f"{file}: {words}" for words in reader.damaged]
        how = {"batch": batch, "jobs": jobs, "preview": preview, "progress": "auto"}
        decoded = images_of_file(codec, reader, chosen, on_damage=damage.append if salvage else None, **how)
        count = write_images(decoded, output, codec.model.shape, reader.names)
    for words in damage:
        typer.echo(words, err=True)
    if preview:
        typer.echo(f"{preview.folder}: previews, NUMBER_step_t.png, t from {codec.layers.steps} (noise) down", err=True)
    typer.echo(f"{output}: {count:,} of {reader.images:,} images")


def _range(text: str | None, images: int) -> range:
    if text is None:
        return range(images)
    first, colon, last = text.partition(":")
    try:
        chosen = range(int(first or 0), int(last or images))
    except ValueError:
        chosen = range(-1, 0)
    if not colon or not 0 <= chosen.start <= chosen.stop <= images:
        raise RecipeError(f"--range {text}: expected A:B with 0 <= A <= B <= {images}.")
    return chosen
