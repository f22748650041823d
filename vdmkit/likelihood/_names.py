# SPDX-License-Identifier: Apache-2.0
"""The names of results: different measurements have different names."""

import re

from vdmkit.registry import Choice

_LONGEST = 80  # characters of the estimator; the fingerprint distinguishes truncated names


def name_of_result(dataset: str, label: int | str | None, estimator: Choice, fingerprint: str) -> str:
    """Returns a name for a measurement, such as `digits-test_label-data_bound-steps-10_3f9a1c20`.

    Args:
        dataset: Name and split of the images, such as digits/test.
        label: Label that the network was told, "data" for each image's own, or None.
        estimator: The recipe's choice; settings that differ from the default are in the name.
        fingerprint: Fingerprint, in hexadecimal, of everything that the number depends on.
    """
    told = [] if label is None else [f"label-{label}"]
    return "_".join([_words(dataset), *told, _words(str(estimator))[:_LONGEST], fingerprint[:8]])


def _words(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
