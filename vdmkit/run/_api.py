# SPDX-License-Identifier: Apache-2.0
"""Runs from Python: training a recipe, and loading a run folder."""

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vdmkit.arguments import check_one_of
from vdmkit.errors import RecipeError
from vdmkit.progress import Progress
from vdmkit.recipe import as_overrides, as_text, load_for_run
from vdmkit.run._folder import RunFolder
from vdmkit.run._load import Run, Weights, load_run
from vdmkit.run._run import run_recipe

StrPath = str | os.PathLike[str]


def load(
    path: StrPath,
    *,
    step: int | None = None,
    weights: Weights = "ema",
    overrides: Mapping[str, Any] | Iterable[str] = (),
    plugins: Iterable[StrPath] = (),
    trust: bool = False,
) -> Run:
    """Reads a run folder. The plugin files that it kept are executed if this user made a run with them here.

    Args:
        path: The run folder.
        step: Step of the checkpoint; by default the newest.
        weights: Averaged ("ema") or "raw" parameters, for `Run.model`.
        overrides: Recipe keys that may change after training, such as {"sampling.steps": 50}.
        plugins: Python files that register more components.
        trust: Whether plugin files of a run folder from someone else are executed too.

    Raises:
        UnknownCodeError: a plugin file is of no run that this user made here, and `trust` is false.
        CheckpointError: the folder is not a run, or its checkpoint is missing, damaged, or from another run.
        RecipeError: an override changes what was trained.
    """
    check_one_of("weights", weights, ("ema", "raw"))
    return load_run(path, as_overrides(overrides), [Path(file) for file in plugins], step, weights, trust=trust)


def train(
    recipe: StrPath | Mapping[str, Any],
    *,
    out: StrPath | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    plugins: Iterable[StrPath] = (),
    progress: Progress = None,
) -> Run:
    """Trains, evaluates and samples a recipe in a run folder, as `vdmkit run` does. An existing run continues.

    Args:
        recipe: The name of a recipe of vdmkit, a TOML file, or its tables as a dict.
        out: The run folder; runs/RECIPE by default.
        overrides: Recipe keys, such as {"training.steps": 400}.
        plugins: Python files that register components.
        progress: None, "auto" for what `vdmkit run` shows, or an object like `vdmkit.progress.Meter`.

    Raises:
        VdmkitError: the recipe, the data or the folder is invalid, or training or evaluation fails.
    """
    if isinstance(recipe, Mapping):
        if out is None:
            raise RecipeError("train: a recipe that is a dict needs a run folder. Give `out`.")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "recipe.toml"
            path.write_text(as_text(recipe))
            try:
                return train(path, out=out, overrides=overrides, plugins=plugins, progress=progress)
            except RecipeError as error:
                raise RecipeError(re.sub(rf"{re.escape(str(path))}(:\d+)*", "recipe", str(error))) from None
    files = [Path(file) for file in plugins]
    checked, text, path = load_for_run(recipe, None if out is None else Path(out), as_overrides(overrides), files)
    run_recipe(checked, text, RunFolder(path), files, progress=progress)
    return load_run(path)
