# SPDX-License-Identifier: Apache-2.0
"""The run folder of a process. The first one writes to the run folder itself, the others to copies that are deleted.

So every process does the same, in the same order, and one alone leaves traces. Checkpoints are written by all.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

from vdmkit.distributed._start import started_as
from vdmkit.distributed._talk import is_first, meet

_COPIED = ("recipe.toml", "resolved.toml", "manifest.json", "metrics.jsonl")
_LINKED = ("checkpoints", "trained_on.npy", "trained_levels.npy")
_copies: dict[str, str] = {}


def own_folder(run: Path) -> Path:
    """Returns the folder in which this process works on a run: `run`, or its own copy. All must call it."""
    if started_as() is None:
        return run
    folder = run if is_first() else _copy(run.resolve())
    meet()  # the first must not change what the others copy
    return folder


def in_words(text: str) -> str:
    """Returns a message in which copies have the name of their run folder."""
    for copy, run in _copies.items():
        text = text.replace(copy, run)
    return text


def delete_copies() -> None:
    """Deletes this process's own copies of run folders."""
    for copy in _copies:
        shutil.rmtree(copy, ignore_errors=True)


def _copy(run: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="vdmkit-"))
    atexit.register(delete_copies)
    _copies[str(folder)] = str(run)
    for name in _COPIED:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    if (run / "plugins").is_dir():
        shutil.copytree(run / "plugins", folder / "plugins")
    for name in _LINKED:
        if (run / name).exists():
            (folder / name).symlink_to(run / name)
    return folder
