# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of every file of a checkpoint, so that a damaged one is known before anything reads it."""

import hashlib
import json
import os
from pathlib import Path

_NAME = "checksums.json"


def write_checksums(folder: Path) -> None:
    """List the folder's files. Written last and renamed into place: a checkpoint without the list is unfinished."""
    sums = {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    temporary = folder / f".{_NAME}"
    temporary.write_text(json.dumps(sums, indent=1))
    os.replace(temporary, folder / _NAME)


def what_is_damaged(folder: Path) -> str | None:
    """The first file that is not as it was written, in words, or None."""
    try:
        sums = json.loads((folder / _NAME).read_text())
    except FileNotFoundError:
        return "it was not finished"
    except ValueError:
        return f"{_NAME} is damaged"
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _sha256(path) != expected:
            return f"{name} has changed since it was written ({path.stat().st_size} bytes now)"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
