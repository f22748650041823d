# SPDX-License-Identifier: Apache-2.0
"""`vdmkit score`: samples of a run against real images."""

import json
from typing import Annotated

import typer

from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step

Number = Annotated[int, typer.Option("-n", min=6, help="How many samples, and test images.")]


def score(
    checkpoint: Checkpoint,
    overrides: Overrides,
    plugins: PluginFiles,
    step: Step = None,
    number: Number = 200,
    as_json: AsJson = False,
) -> None:
    """Compare samples with test images by features that need no download, beside what real images score."""
    from vdmkit.run import load_run, score_run

    scores = score_run(load_run(checkpoint, overrides, plugins, step), number)
    typer.echo(json.dumps(scores.as_json(), indent=2) if as_json else str(scores))
