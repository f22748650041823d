# SPDX-License-Identifier: Apache-2.0
"""Decompresses images from a .vdmz file, one chunk at a time, and writes them as one .npy or as PNG files."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Integer, UInt8
from numpy.lib.format import write_array_header_1_0

from vdmkit.data.sources import pixel_sha256
from vdmkit.errors import CodecError, RecipeError
from vdmkit.io import whole_file, whole_folder
from vdmkit.progress import Progress, track
from vdmkit.report import write_png
from vdmkit_codec.chain import ChunkCode
from vdmkit_codec.codec import Codec
from vdmkit_codec.container import Reader

Images = UInt8[np.ndarray, "n h w c"]
_MOST_PARTS = 100  # folders within folders


@dataclass(frozen=True)
class Preview:
    """Writes x_hat(z_t) of every image at every `every` steps, as PNG files in a folder."""

    folder: Path
    every: int

    def on_latent(self, code: ChunkCode, first: int) -> Callable[..., None]:
        """Returns the callback on latents of a chunk whose first image has number `first`."""
        self.folder.mkdir(parents=True, exist_ok=True)

        def write(which: Integer[np.ndarray, " n"], t: int, k: Integer[np.ndarray, "n h w c"]) -> None:
            if t and t % self.every == 0:
                x_hat = code.chain.network.x_hat(k, t)
                for i, picture in zip((which + first).tolist(), _picture(x_hat), strict=True):
                    write_png(picture, self.folder / f"{i:06d}_step_{t:04d}.png")

        return write


def _picture(x_hat: Float[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n h w c"]:
    return np.clip(np.rint((x_hat + 1) / 2 * 255), 0, 255).astype(np.uint8)


def images_of_file(
    codec: Codec,
    reader: Reader,
    wanted: range,
    *,
    batch: int | None = None,
    jobs: int = 1,
    preview: Preview | None = None,
    progress: Progress = None,
) -> Iterator[tuple[int, Images]]:
    """Yields the wanted images, one chunk at a time, with the number of the first.

    Args:
        codec: The codec.
        reader: The file.
        wanted: Numbers of the images.
        batch: Number of images in a call of the network; by default the same as for encoding.
        jobs: Number of chunks that are decoded concurrently.
        preview: Writer of the model's estimates.
        progress: As in `vdmkit.sample`.

    Raises:
        RecipeError: the batch differs from the encoder's, with profile host.
        CodecError: a chunk is damaged, or does not decode to its images.
    """
    if batch not in (None, codec.group) and codec.profile == "host":
        raise RecipeError(f"--batch {batch}: profile host decodes in batches of {codec.group}, as it encoded.")
    code = codec.chunk_code(batch)
    chunks = [
        i for i, entry in enumerate(reader.chunks) if entry.first < wanted.stop and entry.next_image > wanted.start
    ]
    total = sum(reader.chunks[i].images for i in chunks)

    with track(progress, "decompressing", total) as advance, ThreadPoolExecutor(jobs) as pool:
        decode = partial(_decode, code, reader, preview, advance)
        for first in range(0, len(chunks), jobs):
            some = chunks[first : first + jobs]
            for i, images in zip(some, pool.map(decode, some), strict=True):
                entry = reader.chunks[i]
                low = max(wanted.start - entry.first, 0)
                yield entry.first + low, images[low : wanted.stop - entry.first]


def _decode(
    code: ChunkCode, reader: Reader, preview: Preview | None, advance: Callable[[int], object], i: int
) -> Images:
    payload, entry, expected = reader.payload(i), reader.chunks[i], reader.chunk(i).pixels_sha256.hex()
    on_latent = preview.on_latent(code, entry.first) if preview else lambda which, t, k: None
    try:
        images = code.decode(payload, advance, on_latent)
    except CodecError as error:
        raise CodecError(f"{reader.path}: {entry.title}: {error}.") from error
    if not pixel_sha256(images).startswith(expected):
        raise CodecError(f"{reader.path}: {entry.title}: the decoded images are not those that were encoded.")
    return images


def write_images(
    decoded: Iterator[tuple[int, Images]], out: Path, shape: tuple[int, int, int], names: list[str] | None
) -> int:
    """Writes images atomically to one .npy, or as PNG files to a new folder. Returns their number.

    Raises:
        CodecError: a name is not a valid path inside the folder, or two names give the same file.
        OSError: the folder exists and is not empty, or cannot be written.
    """
    if out.suffix == ".npy":
        return _write_array(decoded, out, shape)
    paths, count = _paths(names) if names else None, 0
    with whole_folder(out) as folder:
        for first, images in decoded:
            for i, image in enumerate(images, start=first):
                path = folder / (paths[i] if paths else f"{i:06d}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                write_png(image, path)
            count += len(images)
    return count


def _write_array(decoded: Iterator[tuple[int, Images]], out: Path, shape: tuple[int, int, int]) -> int:
    """Writes one .npy, without a memory map, because a full disk would then kill the process."""
    count = 0
    with whole_file(out) as part, part.open("wb") as file:
        _write_header(file, (0, *shape))
        for _, images in decoded:
            file.write(images.tobytes())
            count += len(images)
        file.seek(0)
        _write_header(file, (count, *shape))  # numpy pads the header for a longer first axis
    return count


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _paths(names: list[str]) -> list[PurePosixPath]:
    """Returns the files of the images. Raises CodecError if one would replace an earlier one."""
    paths = [_path(name) for name in names]
    twice = [str(path) for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise CodecError(f"{twice[0]!r}: two images have this name. Use -o with a .npy.")
    return paths


def _path(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise CodecError(f"{name}: a path outside of the folder. Use -o with a .npy.")
    try:
        sizes = [len(os.fsencode(part)) for part in path.parts]
        fits = "\0" not in name and path.name and len(sizes) <= _MOST_PARTS
        fits = fits and max(sizes) <= 250 and sum(sizes) <= 2_000  # with `.png`, and below a folder
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise CodecError(f"{name[:200]!r}: not a valid file name. Use -o with a .npy.")
    return path.with_suffix(".png")
