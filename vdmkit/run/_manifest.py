# SPDX-License-Identifier: Apache-2.0
"""The manifest of a run: data, plugins, versions and sessions."""

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from vdmkit import __version__
from vdmkit.data import Images
from vdmkit.devices import arithmetic, packages


def manifest(
    train: Images,
    test: Images,
    plugins: Mapping[str, str],
    sessions: Sequence[dict[str, Any]],
    imported: str | None = None,
    kept: Mapping[str, str] | None = None,
    newest_checkpoint: int | None = None,
) -> dict[str, Any]:
    """Returns the manifest of a run as JSON values.

    Args:
        train: Training images, whose identity is recorded.
        test: Test images, whose identity is recorded.
        plugins: SHA-256 of every plugin file, by file name.
        sessions: The processes that trained the run: see `session`.
        imported: SHA-256 of the file that the parameters were imported from.
        kept: SHA-256 of the files on training images, by file name.
        newest_checkpoint: Step of the checkpoint that was saved last.
    """
    return {
        "shape": list(train.pixels.shape[1:]),
        "levels": train.levels,
        "data": {"train": asdict(train.identity), "test": asdict(test.identity)},
        "plugins": dict(plugins),
        "imported": imported,
        "kept": dict(kept or {}),
        "sessions": list(sessions),
        "newest_checkpoint": newest_checkpoint,
    }


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
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty=+",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
