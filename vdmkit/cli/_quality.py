# SPDX-License-Identifier: Apache-2.0
"""`vdmkit quality`: compares samples of a run with real images."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step, Steps, Trust, with_steps
from vdmkit.errors import RecipeError

Number = Annotated[int, typer.Option("-n", min=6, help="Number of samples, and of test images.")]
Inception = Annotated[
    Path | None,
    typer.Option("--inception", metavar="FILE", help="Inception's weights in torch-fidelity's format; adds FID."),
]


def quality(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    trust: Trust = False,
    number: Number = 200,
    steps: Steps = None,
    inception: Inception = None,
    as_json: AsJson = False,
) -> None:
    """Compare samples with test images by features that need no download, beside the scores of real images."""
    overrides = with_steps(overrides, steps)
    if inception and inception.is_dir():
        raise RecipeError(f"--inception {inception}: a folder. Give the file of weights inside it.")
    from vdmkit.quality import load_inception
    from vdmkit.run import load_run, score_run

    extractor = load_inception(inception) if inception else None
    scores = score_run(load_run(checkpoint, overrides, plugins, step, trust=trust), number, extractor)
    typer.echo(json.dumps(scores.as_json(), indent=2) if as_json else str(scores))
