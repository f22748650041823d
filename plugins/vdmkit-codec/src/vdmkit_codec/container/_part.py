# SPDX-License-Identifier: Apache-2.0
"""The unfinished file `NAME.part` beside a .vdmz file: locked by one process, and resumed after a kill."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from vdmkit.errors import CodecError
from vdmkit_codec.container._chunk import Entry, is_whole, walk
from vdmkit_codec.container._head import Head, canonical_json, read_head
from vdmkit_codec.container._source import Source


@contextmanager
def hold(part: Path, *, resume: bool) -> Iterator[int]:
    """Yields a descriptor of the file with a lock, which the system releases however the process ends.

    Raises:
        CodecError: Another process has the lock, or the file exists and `resume` is false.
        OSError: The file cannot be created.
    """
    descriptor, made = _open(part)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have finished and renamed the file since it was opened.
            held = os.path.samestat(os.fstat(descriptor), os.stat(part))
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise CodecError(f"{part}: another vdmkit is writing it. Wait for it, or choose another -o.")
        if not made and not resume:
            raise CodecError(
                f"{part}: was begun and not finished. Use --resume to go on with it, or delete it to begin anew."
            )
        yield descriptor
    finally:
        os.close(descriptor)


def take_up(source: Source, head: Head) -> tuple[Head, list[Entry]] | None:
    """Reads the head, and the chunks up to the first incomplete one; returns None if the head is incomplete.

    Raises:
        CodecError: The file was begun with another header, or its head is damaged.
    """
    if source.size < len(head.raw) and head.raw.startswith(source.read(0, source.size)):
        return None
    try:
        found = read_head(source)
    except CodecError as error:
        raise CodecError(f"{error} It cannot be resumed: delete it to begin anew.") from error
    if found.version != head.version:
        raise CodecError(f"{source.path}: was begun by an older vdmkit. Delete it to begin anew.")
    if differences := _differences(found.header, head.header):
        raise CodecError(
            f"{source.path}: was begun with another header: {'; '.join(differences)}. "
            "Resume with the same settings, or delete it to begin anew."
        )
    chunks = walk(source, len(found.raw), found.file_id)
    return found, list(takewhile(lambda entry: is_whole(source, entry, found.file_id), chunks))


def _open(part: Path) -> tuple[int, bool]:
    try:
        return os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(part, os.O_RDWR | os.O_CREAT, 0o666), False


def _differences(begun: dict, now: dict) -> list[str]:
    return [
        f"{key} was {_shown(begun, key)}, is now {_shown(now, key)}"
        for key in sorted({*begun, *now})
        if _shown(begun, key, None) != _shown(now, key, None)
    ]


def _shown(header: dict, key: str, width: int | None = 60) -> str:
    text = canonical_json(header[key]).decode() if key in header else "absent"
    return text if width is None or len(text) <= width else f"{text[:width]}..."
