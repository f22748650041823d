# SPDX-License-Identifier: Apache-2.0
"""The commands `vdmkit compress`, `decompress` and `inspect`. Importing them does not load JAX."""

import io
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vdmkit.cli import AsJson, Checkpoint, Overrides, PluginFiles, Step, Trust, stoppable
from vdmkit.cli.options import grid_option, of_estimator
from vdmkit.errors import DataError, RecipeError

if TYPE_CHECKING:
    import numpy as np

    from vdmkit.data.folder import ImageList

Given = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGES...",
        help="Files, folders, or one .npy of uint8 levels (n, h, w, c); - reads it from standard input.",
    ),
]
Output = Annotated[
    Path | None, typer.Option("-o", metavar="FILE.vdmz", help="The file to write; - for standard output.")
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="T. Default: as trained; after training in continuous time 250 for the Gaussian, and for the mixture as "
        "many as suit the number of levels: 8 for digits, 15 for 256 levels.",
    ),
]
Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="NAME|FILE.toml",
        help="Reverse kernel: mixture, gaussian, or a file of a Gaussian one that `vdmkit study` saves. Default: as "
        "trained; after training in continuous time mixture if the prediction is over levels, else gaussian.",
    ),
]
Grid = Annotated[str | None, grid_option("as trained, or even in gamma, or for the mixture where steps are worth most")]
ChosenProfile = Annotated[
    Literal["portable", "host"],
    typer.Option("--profile", help="portable: float64, for all machines. host: float32, for this machine alone."),
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=4096, help="Largest number of images coded together.")]
ChunkSize = Annotated[
    int, typer.Option("--chunk", min=1, max=65535, help="Images in a chunk, which is decoded as a whole.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a file whose writing was interrupted.")]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not decode each chunk before it is written.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing; print the size expected from the bound.")]

File = Annotated[Path, typer.Argument(metavar="FILE.vdmz", help="- reads it from standard input.")]
Restored = Annotated[
    Path,
    typer.Option(
        "-o",
        metavar="FOLDER|FILE.npy",
        help="A new folder of PNG files, or one array; - writes the array to standard output.",
    ),
]
Range = Annotated[str | None, typer.Option("--range", metavar="A:B", help="Images A to B - 1 only, counted from 0.")]
DecodingBatch = Annotated[
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
MaxPixels = Annotated[
    int | None,
    typer.Option("--max-pixels", min=1, help="Most values in a chunk of a trusted file. Default: 2^26."),
]


@partial(stoppable, what_now="Finished chunks are kept: to continue, add --resume to the same command.")
def compress(
    given: Given,
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    output: Output = None,
    step: Step = None,
    trust: Trust = False,
    steps: Steps = None,
    kernel: Kernel = None,
    grid: Grid = None,
    profile: ChosenProfile = "portable",
    batch: Batch = 64,
    chunk: ChunkSize = 1024,
    resume: Resume = False,
    no_verify: NoVerify = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compress images without loss, at the rate of the model's T-step bound. Decompression needs the same model."""
    if output is None and not dry_run:
        raise RecipeError("-o is missing. Expected a name that ends in .vdmz.")
    piped = output == Path("-")
    if piped and resume:
        raise RecipeError("-o -: standard output cannot be resumed. Omit --resume, or name a file.")
    if output and not piped and (output.suffix != ".vdmz" or not output.parent.is_dir()):
        raise RecipeError(f"-o {output}: expected a name that ends in .vdmz, in an existing folder.")
    if output and not piped and output.is_dir():
        raise RecipeError(f"-o {output}: is a folder. Expected the name of a file.")
    overrides = [*of_estimator(steps, kernel, grid), *overrides]
    from vdmkit.conformance.recipe import check_model_of_recipe
    from vdmkit.data.folder import list_images
    from vdmkit.experiments import load_run
    from vdmkit_codec.coding import coding_of, with_steps_of_codec
    from vdmkit_codec.encoding import to_bytes, write_file
    from vdmkit_codec.forecast import expected_rate

    run = with_steps_of_codec(load_run(checkpoint, overrides, plugins, step, trust=trust), overrides)
    coding = coding_of(run, profile=profile, group=batch)
    shape = coding.codec.model.shape
    images = _from_standard_input(shape) if given == [Path("-")] else list_images(given, shape)
    few = images.read(0, min(2, len(images)))
    few = of_model_levels(given, few, coding.codec.model.observation.levels)
    check_model_of_recipe(run.recipe, coding.codec.model, few).refuse()
    if images.passed_over:
        typer.echo(f"{images.passed_over} other files in these folders are skipped", err=True)
    if dry_run or output is None:
        report = expected_rate(coding, images, chunk=chunk, seed=run.recipe.seed, progress="auto")
    elif piped:
        data, report = to_bytes(coding, images, chunk=chunk, verify=not no_verify, progress="auto")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        how = {"chunk": chunk, "resume": resume, "verify": not no_verify, "progress": "auto"}
        report = write_file(coding, images, output, **how)
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else str(report), err=piped and not dry_run)


@partial(stoppable, what_now="No images were written. Run the same command again to start over.")
def decompress(
    file: File,
    checkpoint: Checkpoint,
    output: Restored,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    wanted: Range = None,
    batch: DecodingBatch = None,
    jobs: Jobs = 1,
    preview_every: Previews = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Restore the images of a file exactly, with the run that compressed it."""
    if preview_every and output == Path("-"):
        raise RecipeError("--preview-every: needs a folder or a file. Give its name by -o.")
    if not output.name:
        raise RecipeError(f"-o {output}: expected the name of a new folder, or of a .npy.")
    from vdmkit.experiments import RunFolder, load_run
    from vdmkit_codec.coding import codec_of_file, step_of_file
    from vdmkit_codec.container import open_reader
    from vdmkit_codec.decoding import Preview, images_of_file, write_images
    from vdmkit_codec.payload import MAX_PIXELS

    piped = output == Path("-")
    given = sys.stdin.buffer.read() if file == Path("-") else file
    with open_reader(given, max_pixels=max_pixels or MAX_PIXELS, name="-") as reader:
        chosen = _range(wanted, reader.images)
        step = step_of_file(reader, RunFolder(checkpoint)) if step is None else step
        codec = codec_of_file(load_run(checkpoint, overrides, plugins, step, trust=trust), reader)
        preview = Preview(output.with_name(f"{output.stem}.previews"), preview_every) if preview_every else None
        decoded = images_of_file(codec, reader, chosen, batch=batch, jobs=jobs, preview=preview, progress="auto")
        if piped:
            count = _to_standard_output(decoded, codec.model.shape)
        else:
            count = write_images(decoded, output, codec.model.shape, reader.names)
    if preview:
        typer.echo(f"{preview.folder}: previews, NUMBER_step_t.png, t from {codec.layers.steps} (noise) down", err=True)
    typer.echo(f"{output}: {count:,} of {reader.images:,} images", err=piped)


@stoppable
def inspect(file: File, as_json: AsJson = False) -> None:
    """Show the contents of a compressed file, and where its bits went. It reads every chunk, without a checkpoint."""
    from vdmkit_codec.inspection import inspect

    found = inspect(sys.stdin.buffer.read() if file == Path("-") else file, name="-")
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else str(found))


def _from_standard_input(shape: tuple[int, int, int]) -> "ImageList":
    """Reads one array. Raises DataError if it does not hold images of this shape."""
    import numpy as np

    from vdmkit.data.folder import ImageList

    try:
        array = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"-: cannot be read as an array ({error}). Pipe in a .npy.") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != shape:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"-: {found}; expected uint8 (n, {', '.join(map(str, shape))}), as the model's images.")
    return ImageList(shape, None, [], array)


def of_model_levels(given: list[Path], first: "np.ndarray", levels: int) -> "np.ndarray":
    """Selects the images in `first` that have the model's levels. Raises DataError if there are none."""
    named = str(given[0]) if len(given) == 1 else f"{given[0]}, ..."
    if not len(first):
        raise DataError(f"{named}: there are no images. Give some.")
    highest = first.reshape(len(first), -1).max(1)
    if highest.min() >= levels:
        raise DataError(
            f"{named}: a pixel is {highest[0]}: expected 0..{levels - 1}, as in the training images of the run. "
            "Give images of these levels, or a run that was trained on images like yours."
        )
    return first[highest < levels]


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
