# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of every file of a checkpoint, to find damage before the checkpoint is read, and of parameters."""

import hashlib
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from vdmkit.errors import CheckpointError
from vdmkit.io import are_intact, file_sha256, has_sha256, not_a_file, read_json, write_results

_NAME = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Writes the list of the folder's files, last and atomically: a checkpoint without the list is unfinished."""
    sums = {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    write_results(folder / _NAME, sums)


def is_finished(folder: Path) -> bool:
    """Returns whether the list of the folder's files was written."""
    return (folder / _NAME).exists()


def what_is_damaged(folder: Path, suffix: str = "") -> str | None:
    """Describes the first damaged or missing file; returns None if all are intact.

    Only files with this suffix are read; the others only have to exist.
    """
    if is_finished(folder) and (reason := not_a_file(folder / _NAME)):
        return f"{_NAME} is {reason}"
    try:
        found = read_json(folder / _NAME, dict[str, str | int])
    except FileNotFoundError:
        return "it was not finished"
    except ValueError:
        return f"{_NAME} is damaged"
    sums = {name: sha256 for name, sha256 in found.items() if isinstance(sha256, str)}  # without its own checksum
    if not sums or not are_intact(found):
        return f"{_NAME} is damaged"
    # Unlisted hidden files are allowed, because operating systems create some.
    there = {str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file()}
    if unlisted := there - {_NAME, *sums}:
        return f"{min(unlisted)} is not in {_NAME}"
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if name.endswith(suffix) and file_sha256(path) != expected:
            return f"{name} has changed since it was written ({path.stat().st_size} bytes now)"
    return None


def check_unchanged(path: Path, sha256: str, advice: str) -> None:
    """Raises CheckpointError if a file is missing, or its SHA-256 differs from that of the file the run wrote."""
    if not path.is_file():
        raise CheckpointError(f"{path}: missing. {advice}")
    if not has_sha256(path, sha256):
        raise CheckpointError(f"{path}: changed since the run wrote it. {advice}")


def sha256_of_arrays(tree: PyTree) -> str:
    """Returns the SHA-256 of the parameters, since runs on different data may share recipe, step and folder."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
