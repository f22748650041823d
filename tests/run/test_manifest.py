# SPDX-License-Identifier: Apache-2.0
"""The manifest: what a reader needs to know where a number came from."""

import json
import platform
from pathlib import Path

import jax

from vdmkit.run import manifest


def test_what_a_run_was_made_with(tiny_images):
    """The versions, the device, the plugins or the data of a run would not be known afterwards."""
    facts = manifest(tiny_images, tiny_images, [Path("mine.py")])
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["packages"]["jax"] == jax.__version__
    assert facts["python"] == platform.python_version()
    assert facts["device"].startswith(f"{jax.device_count()} x ")
    assert facts["plugins"] == [str(Path("mine.py").resolve())], "found again from another folder"
    assert facts["data"]["train"] == {
        "name": "tiny",
        "split": "test",
        "count": 12,
        "sha256": tiny_images.identity.sha256,
        "published": None,
    }
    assert (facts["shape"], facts["levels"]) == ([4, 4, 1], 5)
