# SPDX-License-Identifier: Apache-2.0
"""Download of one file whose SHA-256 is known."""

import hashlib
import http.client
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from vdmkit.data._cache import cached_file
from vdmkit.errors import DataError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60


def download(url: str, path: Path, sha256: str) -> None:
    """Downloads `url` to `path`, with a progress bar on standard error. A wrong or partial file is deleted.

    Raises:
        DataError: the transfer fails, the SHA-256 differs, or `path` cannot be written.
    """
    digest = hashlib.sha256()
    with cached_file(path) as part, part.open("wb") as file:
        for chunk in _chunks(url):
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != sha256:
            raise DataError(
                f"{url}: the download has SHA-256 {digest.hexdigest()}, expected {sha256}. "
                "It was deleted. Try again, or give another `url` or the `path` of a file that you have."
            )


def _chunks(url: str) -> Iterator[bytes]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,
            Progress(*columns, console=Console(stderr=True)) as progress,
        ):
            task = progress.add_task(f"downloading {url}", total=int(response.headers["Content-Length"] or 0) or None)
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk
                progress.update(task, advance=len(chunk))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(
            f"{url}: cannot be downloaded ({error}). Check the network and the `url`, or give the `path` of a file "
            "that you have."
        ) from error
