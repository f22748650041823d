# SPDX-License-Identifier: Apache-2.0
"""Which plugin files that a run folder keeps may be executed: a run folder from someone else is data, not a program.

Known are the contents of files that this user named by `--plugin`, trusted, or trained a run with on this machine. The
latter are in the cache folder, one file for each SHA-256.
"""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from vdmkit.errors import DataError, UnknownCodeError
from vdmkit.files import write_text
from vdmkit.paths import cache_folder, is_own_file, not_a_file

_known: set[str] = set()  # SHA-256 of what this process may execute


def allow(files: Iterable[str | Path]) -> None:
    """Lets this process execute the plugin files, which the user named or trusts."""
    _known.update(sha256_of(Path(file).read_bytes()) for file in files if not_a_file(Path(file)) is None)


def remember(sources: Mapping[str, bytes]) -> None:
    """Records the contents of plugin files, by name, as those of a run that this user made.

    Where the record cannot be written, later commands ask for `--trust`; training does not end for it.
    """
    for name, source in sources.items():
        sha256 = sha256_of(source)
        _known.add(sha256)
        with suppress(OSError, DataError):
            record = _record_of(sha256)
            record.parent.mkdir(parents=True, exist_ok=True)
            write_text(record, f"{sha256}  {name}\n")


def refuse_unknown(sources: Mapping[Path, bytes]) -> None:
    """Raises UnknownCodeError if a plugin file that a run kept is not known, before any of them is executed."""
    unknown = {path: source for path, source in sources.items() if not _is_known(sha256_of(source))}
    if unknown:
        lines = [
            f"{path}: this run folder would have this file executed ({len(source.splitlines()):,} lines, SHA-256 "
            f"{sha256_of(source)[:12]})."
            for path, source in unknown.items()
        ]
        raise UnknownCodeError(
            "\n".join(lines) + "\nNo run that you made on this machine had such a file, and nothing was executed. If "
            "you have read it and trust it, add --trust; in Python vdmkit.load(..., trust=True)."
        )


def sha256_of(source: bytes) -> str:
    """Returns the SHA-256 of a plugin file's contents."""
    return hashlib.sha256(source).hexdigest()


def _is_known(sha256: str) -> bool:
    return sha256 in _known or _is_recorded(sha256)


def _is_recorded(sha256: str) -> bool:
    """Returns whether this user recorded it: others, with whom the cache is shared, could add or rename files."""
    try:
        record = _record_of(sha256)
        return is_own_file(record) and record.read_text().startswith(f"{sha256}  ")
    except (OSError, ValueError, DataError):
        return False


def _record_of(sha256: str) -> Path:
    return cache_folder() / "plugins" / sha256
