# SPDX-License-Identifier: Apache-2.0
"""The metrics that a stopped run keeps come back bit for bit, or are refused."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import CheckpointError
from vdmkit.training.loop import Unlogged, means, unlogged_in


def test_means_go_on_over_a_stop():
    """The line of metrics after a stop would differ from that of a run without one."""
    updates = [{"bpd": jnp.asarray([one]), "gradient": jnp.asarray([3 * one])} for one in np.float32([0.1, 0.7, 1 / 3])]
    kept = json.loads(json.dumps(Unlogged(updates[:2], 4.5).as_json()))
    found = unlogged_in(kept, Path("run"))
    assert found.seconds == 4.5
    assert means([*found.metrics, updates[2]], 9) == means(updates, 9)
    assert unlogged_in(Unlogged([], 4.5).as_json(), Path("run")) == ([], 0.0)


@pytest.mark.parametrize(
    "found", [7, [], {}, {"metrics": {}}, {"metrics": {"bpd": 1.0}, "seconds": 1}, {"metrics": {"bpd": ["a"]}}]
)
def test_what_no_run_left_is_refused(found):
    """A forged checkpoint would end training in a traceback."""
    with pytest.raises(CheckpointError, match="run: its metrics cannot be read"):
        unlogged_in({"unlogged": found}, Path("run"))
