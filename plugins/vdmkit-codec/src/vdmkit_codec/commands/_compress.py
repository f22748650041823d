# SPDX-License-Identifier: Apache-2.0
"""`vdmkit compress`: compresses images into a .vdmz file."""

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vdmkit.cli import AsJson, Checkpoint, Overrides, PluginFiles, Step, Trust, grid_option, of_estimator
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
        "many as the number of levels asks for: 8 for digits, 15 for 256 levels.",
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
Grid = Annotated[str | None, grid_option("as trained, or even in gamma, for the mixture where the steps tell most")]
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
    """Compress images without loss, at the rate of the model's T-step bound. Reading them takes the same model."""
    if output is None and not dry_run:
        raise RecipeError("-o is missing: where to? Expected a name that ends in .vdmz.")
    piped = output == Path("-")
    if piped and resume:
        raise RecipeError("-o -: standard output cannot be resumed. Omit --resume, or name a file.")
    if output and not piped and (output.suffix != ".vdmz" or not output.parent.is_dir()):
        raise RecipeError(f"-o {output}: expected a name that ends in .vdmz, in a folder that is there.")
    if output and not piped and output.is_dir():
        raise RecipeError(f"-o {output}: is a folder. Expected the name of a file.")
    overrides = [*of_estimator(steps, kernel, grid), *overrides]
    from vdmkit.conformance import check_model_of_recipe
    from vdmkit.data.folder import list_images
    from vdmkit.experiments import load_run
    from vdmkit_codec.codec import coding_of, expected_rate, to_bytes, with_steps_of_codec, write_file

    run = with_steps_of_codec(load_run(checkpoint, overrides, plugins, step, trust=trust), overrides)
    coding = coding_of(run, profile=profile, group=batch)
    shape = coding.codec.model.shape
    images = _from_standard_input(shape) if given == [Path("-")] else list_images(given, shape)
    few = images.read(0, min(2, len(images)))
    known = _known(given, few, coding.codec.model.observation.levels)
    check_model_of_recipe(run.recipe, coding.codec.model, known).refuse()
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


def _from_standard_input(shape: tuple[int, int, int]) -> "ImageList":
    """Reads one array. Raises DataError if it is not one of images of this shape."""
    import numpy as np

    from vdmkit.data.folder import ImageList

    try:
        array = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"-: cannot be read as an array ({error}). Give a .npy by standard input.") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != shape:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"-: {found}; expected uint8 (n, {', '.join(map(str, shape))}), as the model's images.")
    return ImageList(shape, None, [], array)


def _known(given: list[Path], first: "np.ndarray", levels: int) -> "np.ndarray":
    """Returns those of the first images that have the model's levels. Raises DataError if there are none."""
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
