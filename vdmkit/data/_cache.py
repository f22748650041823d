# SPDX-License-Identifier: Apache-2.0
"""Atomic writes of downloaded and decoded data into the cache folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vdmkit.errors import DataError
from vdmkit.io import whole_file


@contextmanager
def cached_file(path: Path) -> Iterator[Path]:
    """Does what `whole_file` does, for a path in the cache folder.

    Raises:
        DataError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            yield part
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error}). Free some space, or set VDMKIT_CACHE to another folder."
        ) from error
