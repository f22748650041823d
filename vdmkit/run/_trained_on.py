# SPDX-License-Identifier: Apache-2.0
"""The records of a run's training images, to detect copies of them and images with other levels."""

import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vdmkit.data import TrainedOn, may_be_prints, may_be_statistics
from vdmkit.errors import CheckpointError
from vdmkit.files import file_sha256, whole_file
from vdmkit.run._folder import RunFolder
from vdmkit.run._load import Run


def keep(folder: RunFolder, found: TrainedOn) -> dict[str, str]:
    """Writes the record to the folder; returns the SHA-256 of each file by name, for the manifest."""
    files = {folder.trained_on: found.prints, folder.trained_levels: found.statistics}
    for path, array in files.items():
        if array is not None:
            with whole_file(path) as part, part.open("wb") as file:
                np.save(file, array)
    return {path.name: file_sha256(path) for path, array in files.items() if array is not None}


def read_trained_on(run: Run) -> TrainedOn:
    """Returns the record of a run; it is empty for imported models, and has hashes only for older runs.

    Raises:
        CheckpointError: A file has changed since it was written, or is not of the run's training images.
    """
    folder, made = run.folder, run.folder.provenance()
    if made.data is None:
        return TrainedOn()
    count, values, older = made.data.train.count, math.prod(made.shape), folder.trained_on.name not in made.kept
    prints = _read(folder.kept(folder.trained_on), lambda a: may_be_prints(a, count, values, older=older))
    statistics = _read(folder.kept(folder.trained_levels), lambda a: may_be_statistics(a, count))
    if prints is not None and statistics is None:
        print(
            f"{folder.path}: a run of an older version, which kept hashes of its training images and no more. Near "
            "copies of them, and test images of other levels, are not noticed. Run the recipe again to keep more.",
            file=sys.stderr,
        )
    return TrainedOn(asdict(made.data.train), prints, statistics)


def _read(path: Path | None, fits: Callable[[np.ndarray], bool]) -> np.ndarray | None:
    try:
        found = None if path is None else np.load(path)
    except Exception as error:  # of many types for a damaged header
        raise CheckpointError(f"{path}: damaged ({error}). Run the recipe again to write it anew.") from error
    if found is None or (isinstance(found, np.ndarray) and fits(found)):
        return found
    raise CheckpointError(f"{path}: not of this run's training images. Run the recipe again to write it anew.")
