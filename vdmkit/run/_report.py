# SPDX-License-Identifier: Apache-2.0
"""The report of runs as a page."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vdmkit.data import Images, Split
from vdmkit.errors import VdmkitError
from vdmkit.page import Page, RunFiles, Seen, Shown, look, page, read_files
from vdmkit.progress import Progress
from vdmkit.run._evaluate import load_test, load_train
from vdmkit.run._load import Run, load_run

_LOADS: dict[Split, Callable[[Run], Images]] = {"train": load_train, "test": load_test}


def report_runs(paths: Sequence[str | os.PathLike[str]], *, trust: bool = False, progress: Progress = None) -> Page:
    """Returns the page of runs. Raises CheckpointError if a folder is not a run; a run that does not load is shown."""
    return page([_shown(one, trust, progress) for one in [read_files(Path(path)) for path in paths]])


def report_run(run: Run, progress: Progress = None) -> Page:
    """Returns the page of a loaded run."""
    return page([Shown(read_files(run.folder.path), _seen(run, progress))])


def _shown(files: RunFiles, trust: bool, progress: Progress) -> Shown:
    try:
        return Shown(files, _seen(load_run(files.path, trust=trust), progress))
    except VdmkitError as error:
        return Shown(files, reason=str(error))


def _seen(run: Run, progress: Progress) -> Seen:
    model = run.weighted(run.recipe.evaluation.weights)
    return look(model, run.recipe, lambda split: _LOADS[split](run), step=run.step, key=run.key, progress=progress)
