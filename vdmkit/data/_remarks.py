# SPDX-License-Identifier: Apache-2.0
"""Remarks printed beside a number about copies among the images that it was measured on."""

import numpy as np
from jaxtyping import Int

from vdmkit.data._copies import Copies


def on_copies(copies: Copies, groups: Int[np.ndarray, " m"], in_test_set: int) -> list[str]:
    """Returns sentences on near copies of training images, and on copies among the m measured images."""
    remarks, distinct = [], len(np.unique(groups))
    if copies.near:
        count = f"{copies.near:,} of the {in_test_set:,} test images are near copies of training images"
        usual = "no more than training images are of each other"
        remarks.append(f"{count}: not a test likelihood." if not copies.held_out else f"{count}, {usual}.")
    if distinct < len(groups):
        count = f"Only {distinct:,} of the {len(groups):,} images are distinct"
        remarks.append(f"{count}: for the error of the test set, copies count as one image.")
    return remarks
