# SPDX-License-Identifier: Apache-2.0
"""`vdmkit decompress`: restores images from a .vdmz file."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vdmkit.cli import Checkpoint, Overrides, PluginFiles, Step, Trust
from vdmkit.errors import RecipeError

File = Annotated[Path, typer.Argument(metavar="FILE.vdmz", help="- reads it from standard input.")]
Output = Annotated[
    Path,
    typer.Option(
        "-o",
        metavar="FOLDER|FILE.npy",
        help="A new folder of PNG files, or one array; - writes the array to standard output.",
    ),
]
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
Salvage = Annotated[
    bool,
    typer.Option("--salvage", help="Decode the undamaged part of a damaged file. Exit code 5 if images are lost."),
]
MaxPixels = Annotated[
    int | None,
    typer.Option("--max-pixels", min=1, help="Most values in a chunk that you trust. Default: 2^26."),
]


def decompress(
    file: File,
    checkpoint: Checkpoint,
    output: Output,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    wanted: Range = None,
    batch: Batch = None,
    jobs: Jobs = 1,
    preview_every: Previews = None,
    salvage: Salvage = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Restore the images of a file exactly, with the run that compressed it."""
    if preview_every and output == Path("-"):
        raise RecipeError("--preview-every: needs a folder or a file. Give its name by -o.")
    if not output.name:
        raise RecipeError(f"-o {output}: expected the name of a new folder, or of a .npy.")
    from vdmkit.experiments import RunFolder, load_run
    from vdmkit_codec.codec import (
        LostError,
        Preview,
        codec_of_file,
        images_of_file,
        lost_images,
        step_of_file,
        write_images,
    )
    from vdmkit_codec.container import MAX_PIXELS, open_reader

    piped = output == Path("-")
    given = sys.stdin.buffer.read() if file == Path("-") else file
    with open_reader(given, salvage=salvage, max_pixels=max_pixels or MAX_PIXELS, name="-") as reader:
        chosen = _range(wanted, reader.images)
        step = step_of_file(reader, RunFolder(checkpoint)) if step is None else step
        codec = codec_of_file(load_run(checkpoint, overrides, plugins, step, trust=trust), reader)
        preview = Preview(output.with_name(f"{output.stem}.previews"), preview_every) if preview_every else None
        damage = [f"{file}: {words}" for words in reader.damaged]
        how = {"batch": batch, "jobs": jobs, "preview": preview, "progress": "auto"}
        decoded = images_of_file(codec, reader, chosen, on_damage=damage.append if salvage else None, **how)
        found = list[range]()
        told = _told(decoded, found)
        if piped:
            count = _to_standard_output(told, codec.model.shape)
        else:
            count = write_images(told, output, codec.model.shape, reader.names)
    for words in damage:
        typer.echo(words, err=True)
    if preview:
        typer.echo(f"{preview.folder}: previews, NUMBER_step_t.png, t from {codec.layers.steps} (noise) down", err=True)
    typer.echo(f"{output}: {count:,} of {reader.images:,} images", err=piped)
    lost = lost_images(chosen, found)
    if lost or any("index is damaged" in words for words in damage):
        raise LostError(_words(file, lost))


def _words(file: Path, lost: list[range]) -> str:
    """Says which images are lost."""
    unknown = f"{file}: its index is lost, so that images may be missing after the last one"
    if not lost:
        return f"{unknown}. All others were decoded."
    parts = [str(one.start) if len(one) == 1 else f"{one.start} to {one.stop - 1}" for one in lost]
    count = sum(map(len, lost))
    return (
        f"{file}: {count:,} image{'s are' if count > 1 else ' is'} lost: {', '.join(parts)}. The others were decoded."
    )


def _told(decoded: "Iterator[tuple[int, Any]]", found: list[range]) -> "Iterator[tuple[int, Any]]":
    """Yields what it is given, and notes the numbers of the images."""
    for first, images in decoded:
        found.append(range(first, first + len(images)))
        yield first, images


def _to_standard_output(decoded: "Iterator[tuple[int, Any]]", shape: tuple[int, int, int]) -> int:
    """Writes one array. Returns the number of images."""
    import numpy as np

    parts = [np.zeros((0, *shape), np.uint8), *(images for _, images in decoded)]
    np.save(sys.stdout.buffer, np.concatenate(parts))
    sys.stdout.buffer.flush()
    return sum(map(len, parts))


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
