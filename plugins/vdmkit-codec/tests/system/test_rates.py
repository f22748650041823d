# SPDX-License-Identifier: Apache-2.0
"""The rates that the README and docs/compression.md promise, of the default model of digits."""

import numpy as np
import pytest
import vdmkit_codec

import vdmkit

MOST = {1: 40, 10: 6, 100: 2.5, 297: 2.06, 1000: 1.90}  # bits per dimension of the whole file
WHITE = 200  # bytes


@pytest.mark.slow
def test_rates_of_digits(program) -> None:
    """Files of one image to a thousand have at most the documented sizes."""
    assert program("run", "digits", "--out", "digits", plugins=()).code == 0
    run = vdmkit.load(program.cwd / "digits")
    images = np.concatenate([run.data(split).pixels for split in ("test", "train")])
    for count, most in MOST.items():
        data = vdmkit_codec.compress(run.model, images[:count], verify=False)
        assert 8 * len(data) / images[:count].size <= most
        np.testing.assert_array_equal(vdmkit_codec.decompress(data, run.model), images[:count])
    assert len(vdmkit_codec.compress(run.model, np.full_like(images[:1], 16))) <= WHITE
