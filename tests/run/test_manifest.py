# SPDX-License-Identifier: Apache-2.0
"""The manifest records everything that a number depends on."""

import json
import platform
from dataclasses import asdict, replace
from hashlib import sha256

import jax

from vdmkit.experiments.folder import provenance_of
from vdmkit.training.loop import session


def test_what_a_run_was_made_with(tiny_images):
    """The manifest records the data, the hashes of plugin files and every session."""
    sessions = [{"from_step": 0, "goal_step": 4}, {"from_step": 4, "goal_step": 9}]
    made = replace(provenance_of(tiny_images, tiny_images, {"mine.py": b"x = 1"}), sessions=sessions)
    facts = json.loads(json.dumps(asdict(made), allow_nan=False))
    assert (facts["plugins"], facts["sessions"]) == ({"mine.py": sha256(b"x = 1").hexdigest()}, sessions)
    assert facts["data"]["train"] == {
        "name": "tiny",
        "split": "test",
        "count": 12,
        "sha256": tiny_images.identity.sha256,
        "low": 0.0,
        "high": 4.0,
        "published": None,
    }
    assert (facts["shape"], facts["levels"]) == ([4, 4, 1], 5)


def test_what_a_session_was_made_with():
    """A session records the device, Python and the versions of all packages, including plugins."""
    facts = session(3, 9)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert (facts["from_step"], facts["goal_step"]) == (3, 9)
    assert (facts["packages"]["jax"], facts["packages"]["vdmkit-laplace"]) == (jax.__version__, "0.1.0")
    assert facts["python"] == platform.python_version()
    assert facts["device"].startswith(f"{jax.device_count()} x ")
