# SPDX-License-Identifier: Apache-2.0
"""The conformance checks cover every kind of component, and installed plugins."""

import subprocess
import sys
from pathlib import Path

import pytest

from vdmkit import conformance
from vdmkit.plugins import load_plugins
from vdmkit.registry import kinds, registry


def test_every_kind_has_its_check():
    """The author of a component could not know what is asked of it."""
    assert {f"check_{kind}" for kind in kinds()} <= set(conformance.__all__)
    assert len(kinds()) == 16


@pytest.mark.system
def test_plugins_are_tested_whatever_is_run():
    """Tests over a registry include installed plugins, whichever files are run."""
    load_plugins()
    files = [Path(__file__).parents[1] / "theory" / name for name in ("test_orders.py", "test_schedules.py")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-m",
        "",
        "-p",
        "no:cacheprovider",
        *map(str, files),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registered = [name for kind in ("sampler", "schedule") for name in registry(kind).components]
    assert all(f"[{name}]" in found for name in registered if name != "ode")  # which has a test of its own
