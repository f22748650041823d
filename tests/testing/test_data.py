# SPDX-License-Identifier: Apache-2.0
"""Conformance of data sources: registered ones pass, and wrong ones are refused with a reason."""

import numpy as np
import pytest

from vdmkit.conformance import check_data
from vdmkit.data import AbstractSource, Images
from vdmkit.data.sources import identified
from vdmkit.errors import ConformanceError


@pytest.mark.parametrize("name", ["digits", "gaussian", "mixture"])  # the others take files: tests/data
def test_data(build, name):
    """Every registered data source passes its conformance checks."""
    check_data(build("data", name))


class _OtherIdentity(AbstractSource):
    """Claims to be the test set of a published data set. For images that change, see tests/system/lying.py."""

    shape, levels = (2, 2, 1), 5

    def load(self, split):
        pixels = np.random.default_rng(0).integers(0, 5, (8, 2, 2, 1)).astype(np.uint8)
        return Images(pixels // 2, 5, identified(pixels, 5, name="mine", split=split).identity)


def test_images_of_another_identity():
    """Images whose identity does not match their pixels are refused."""
    with pytest.raises(ConformanceError, match="identity of train names pixels"):
        check_data(_OtherIdentity())
