# SPDX-License-Identifier: Apache-2.0
"""The files of what was measured of a run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vdmkit.io import whole_file, write_results


def leave_result(folder: Path, name: str, report: dict[str, Any], of_images: Mapping[str, Any]) -> str:
    """Writes the report as NAME.json and every image's numbers as NAME.npz; says where they are.

    Args:
        folder: A folder in that of the run; if the run is read-only, nothing is written.
        name: See `vdmkit.likelihood.report.name_of_result`.
        report: The report as JSON values.
        of_images: Arrays with an entry for each image, and the overrides of the recipe that led to them.
    """
    if not os.access(folder.parent, os.W_OK):
        return f"{folder.parent}: may not be written, so nothing is kept there."
    folder.mkdir(exist_ok=True)
    arrays, summary = (folder / f"{name}.{suffix}" for suffix in ("npz", "json"))
    with whole_file(arrays) as part, part.open("wb") as file:
        np.savez(file, **of_images)
    write_results(summary, report)
    return f"written to {summary}, every image's to {arrays}"
