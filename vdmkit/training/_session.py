# SPDX-License-Identifier: Apache-2.0
"""A session: a process that trained a run."""

import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from vdmkit import __version__
from vdmkit.devices import arithmetic, packages


def session(from_step: int, goal_step: int) -> dict[str, Any]:
    """Returns the steps that this process trains, with its versions, device and command."""
    return {
        "from_step": from_step,
        "goal_step": goal_step,
        "vdmkit": __version__,
        "git": _git(),
        "python": platform.python_version(),
        "packages": packages(),
        **asdict(arithmetic()),
        "processes": jax.process_count(),
        "command": sys.argv,
    }


def _git() -> str | None:
    """Returns the commit of vdmkit's source, with '+' if files have changed; None outside of a checkout."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
