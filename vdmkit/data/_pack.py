# SPDX-License-Identifier: Apache-2.0
"""Packs the images of any source into files that are read on demand, and verifies such files."""

from pathlib import Path

from vdmkit.data._packing import Packing, Unfinished, check_identity, continued, forget, locked
from vdmkit.data._shards import Format
from vdmkit.data._sidecar import NAME, SPLITS, Sidecar, read_sidecar, write_sidecar
from vdmkit.data._source import AbstractSource, Identity
from vdmkit.errors import DataError
from vdmkit.progress import Progress, track


def pack(
    source: AbstractSource,
    folder: Path,
    *,
    file_format: Format = "npy",
    shard_bytes: int = 1 << 28,
    progress: Progress = None,
) -> Sidecar:
    """Packs both splits of a source into a folder, for the source `packed`. If it was interrupted, it continues.

    Args:
        source: The source.
        folder: A new folder, or that of an interrupted call with the same arguments.
        file_format: "npy", or "array_record", which compresses each image without loss.
        shard_bytes: Size of a file before compression; a larger image has a file of its own.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress.Meter`.

    Raises:
        DataError: the source cannot be read, or changes while it is read; or the folder holds something else.
    """
    images = {split: source.load(split) for split in SPLITS}
    height, width, channels = source.shape
    size = height * width * channels * (1 if source.levels else 4)
    identities: dict[str, Identity] = {split: images[split].identity for split in SPLITS}
    begun = Unfinished(file_format, max(shard_bytes // size, 1), source.levels, source.classes, identities)
    with locked(folder):
        if (folder / NAME).exists():
            return _packed_before(folder, begun)
        todo = Packing(folder, (height, width, channels), continued(folder, begun))
        total = sum(len(images[split].pixels) for split in SPLITS)
        with track(progress, "packing", total) as advance:
            files = {split: todo.write(split, images[split].pixels, advance) for split in SPLITS}
        with track(progress, "reading back", total) as advance:
            train, test = (todo.finish(images[split], files[split], advance) for split in SPLITS)
        sidecar = Sidecar(1, file_format, (height, width, channels), source.levels, source.classes, train, test)
        write_sidecar(folder, sidecar)
        forget(folder)
    return sidecar


def verify(folder: Path, *, progress: Progress = None) -> Sidecar:
    """Reads all files of a packed data set, and returns its facts. Raises DataError if any bit differs."""
    sidecar = read_sidecar(folder)
    files, problems = sidecar.files, []
    with track(progress, "files", len(files)) as advance:
        for file in files:
            problems += [problem] if (problem := file.problem(folder, whole=True)) else []
            advance()
    if problems:
        many = f" {len(problems)} of {len(files)} files are damaged." if problems[1:] else ""
        advice = "Put the file back, or pack the images again into another folder."
        raise DataError(f"{problems[0]}.{many} {advice}")
    pixels = {split: sidecar.pixels(folder, split) for split in SPLITS}
    with track(progress, "images", sum(map(len, pixels.values()))) as advance:
        for split in SPLITS:
            check_identity(folder, pixels[split], sidecar.of(split).identity, sidecar.levels, advance)
    return sidecar


def _packed_before(folder: Path, begun: Unfinished) -> Sidecar:
    sidecar = read_sidecar(folder)
    found = {split: sidecar.of(split).identity for split in SPLITS}
    expected = (begun.identities, begun.format, begun.levels, begun.classes)
    if (found, sidecar.format, sidecar.levels, sidecar.classes) != expected:
        raise DataError(f"{folder}: holds other packed images, or another format. Choose another folder.")
    forget(folder)
    return sidecar
