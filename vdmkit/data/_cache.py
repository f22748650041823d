# SPDX-License-Identifier: Apache-2.0
"""The folder for downloaded and decoded data, and files in it that are whole or absent."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vdmkit.errors import DataError


def cache_folder() -> Path:
    """$VDMKIT_CACHE, or ~/.cache/vdmkit. It need not exist."""
    return Path(os.environ.get("VDMKIT_CACHE") or "~/.cache/vdmkit").expanduser()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block ends without an error, and else is deleted.

    Several processes may write the same file at once: the last one to end wins.

    Raises:
        DataError: the folder or the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error}). Free some space, or set VDMKIT_CACHE to another folder."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()
