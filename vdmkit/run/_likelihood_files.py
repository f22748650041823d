# SPDX-License-Identifier: Apache-2.0
"""The files of a measured likelihood; different measurements have different names."""

import os
import re
import sys

import numpy as np

from vdmkit.data import Identity
from vdmkit.files import whole_file, write_json
from vdmkit.likelihood import LikelihoodReport, LogLikelihood, as_arrays
from vdmkit.registry import Choice
from vdmkit.run._folder import RunFolder

_LONGEST = 80  # characters of the estimator; the fingerprint distinguishes truncated names


def name_of_result(data: Identity, estimator: Choice, fingerprint: str) -> str:
    """Returns a name for a measurement, such as `digits-test_bound-steps-10_3f9a1c20`.

    Args:
        data: Identity of the images.
        estimator: The recipe's choice; settings that differ from the default are in the name.
        fingerprint: Fingerprint, in hexadecimal, of everything that the number depends on.
    """
    return "_".join([_words(f"{data.name} {data.split}"), _words(str(estimator))[:_LONGEST], fingerprint[:8]])


def _words(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")


def leave(folder: RunFolder, name: str, report: LikelihoodReport, estimate: LogLikelihood) -> None:
    """Writes the report as NAME.json and every image's estimates as NAME.npz, and prints their paths.

    Args:
        folder: The run. If it is read-only, nothing is written, with a message.
        name: See `name_of_result`.
        report: The report.
        estimate: Two estimates of each image.
    """
    if not os.access(folder.path, os.W_OK):
        print(f"{folder.path}: may not be written, so nothing is kept there.", file=sys.stderr)
        return
    folder.likelihoods.mkdir(exist_ok=True)
    of_images, summary = (folder.likelihoods / f"{name}.{suffix}" for suffix in ("npz", "json"))
    facts = {"index": estimate.index, "nats": -estimate.log_prob, "standard_error": estimate.standard_error}
    with whole_file(of_images) as part, part.open("wb") as file:
        np.savez(file, **facts, **as_arrays(estimate.estimates))
    write_json(summary, report.as_json())
    print(f"written to {summary}, every image's to {of_images}", file=sys.stderr)
