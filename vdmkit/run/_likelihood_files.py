# SPDX-License-Identifier: Apache-2.0
"""The files of a measured likelihood."""

import os
import sys

import numpy as np

from vdmkit.files import whole_file, write_json
from vdmkit.likelihood import LikelihoodReport, LogLikelihood, as_arrays, name_of_result
from vdmkit.registry import Choice
from vdmkit.run._folder import RunFolder


def leave(
    folder: RunFolder, estimator: Choice, fingerprint: str, report: LikelihoodReport, estimate: LogLikelihood
) -> None:
    """Writes the report as NAME.json and every image's estimates as NAME.npz, and prints their paths.

    Args:
        folder: The run. If it is read-only, nothing is written, with a message.
        estimator, fingerprint: See `name_of_result`, by which they are in the name.
        report: The report.
        estimate: Two estimates of each image.
    """
    if not os.access(folder.path, os.W_OK):
        print(f"{folder.path}: may not be written, so nothing is kept there.", file=sys.stderr)
        return
    folder.likelihoods.mkdir(exist_ok=True)
    name = name_of_result(report.dataset, report.label, estimator, fingerprint)
    of_images, summary = (folder.likelihoods / f"{name}.{suffix}" for suffix in ("npz", "json"))
    facts = {"index": estimate.index, "nats": -estimate.log_prob, "standard_error": estimate.standard_error}
    with whole_file(of_images) as part, part.open("wb") as file:
        np.savez(file, **facts, **as_arrays(estimate.estimates))
    write_json(summary, report.as_json())
    print(f"written to {summary}, every image's to {of_images}", file=sys.stderr)
