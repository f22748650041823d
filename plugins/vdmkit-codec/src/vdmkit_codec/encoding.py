# SPDX-License-Identifier: Apache-2.0
"""Compresses images into a .vdmz file, one chunk at a time; each chunk can be decoded before it is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vdmkit.data.folder import ImageList
from vdmkit.data.sources import pixel_sha256
from vdmkit.errors import CodecError
from vdmkit.progress import Advance, Progress, track
from vdmkit_codec.codec import Codec
from vdmkit_codec.coding import Coding
from vdmkit_codec.container import DIGEST, Chunk, Writer, open_writer, pack_file, part_of
from vdmkit_codec.payload import MAX_PIXELS, Limits, payload_of


@dataclass(frozen=True)
class Compressed:
    """The result of compression, in bits per dimension; `bytes_given` is the size of the files that hold the images.

    `gross` counts the whole file; `net` counts the stacks without their `initial` bits, which decoding returns. These
    two are None for a resumed file, and all three for a file without images. `stored` images are not compressed.
    """

    images: int
    stored: int
    bytes: int
    bytes_given: int
    gross: float | None
    net: float | None
    initial: float | None
    steps: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        rate = "" if self.gross is None else f": {self.gross:.4f} bits/dim"
        lines = [f"{self.images:,} image{'s' * (self.images != 1)} in {self.bytes:,} bytes{rate}; {self.steps}"]
        if self.gross is not None and self.net is not None and self.initial is not None:
            rest = self.gross - self.net - self.initial
            lines += [f"= {self.net:.4f} images + {self.initial:.4f} initial bits + {rest:.4f} everything else"]
        if self.stored:
            lines += [f"stored uncompressed (smaller that way, or levels that the model lacks): {self.stored:,}"]
        if self.bytes > self.bytes_given:
            lines += [f"larger than the given files, which have {self.bytes_given:,} bytes"]
        return "\n".join(lines)


def write_file(
    coding: Coding, images: ImageList, out: Path, *, chunk: int, resume: bool, verify: bool, progress: Progress = None
) -> Compressed:
    """Writes the images to `out`.

    Args:
        coding: The codec.
        images: The images.
        out: The file to write.
        chunk: Number of images in a chunk.
        resume: Whether to continue an unfinished file.
        verify: Whether to decode each chunk before it is written.
        progress: As in `vdmkit.sample`.

    Raises:
        CodecError: an unfinished file exists and `resume` is false, or a chunk does not decode to its images.
        DataError: a file is not an image of the model's shape.
    """
    codec = coding.codec
    chunk = min(chunk, most_images(codec))
    coded = []
    if resume and out.exists() and not part_of(out).exists():
        raise CodecError(f"{out}: is finished, there is nothing to resume. Omit --resume to replace it.")
    with (
        resumable(out),
        open_writer(out, coding.header(chunk), resume=resume) as writer,
        track(progress, "compressing", len(images)) as advance,
    ):
        begun = writer.images
        _check_same(writer, images, out)
        if begun:
            advance(begun)
        for one in coded_chunks(coding, images, chunk, begun, verify, advance):
            writer.append(one.chunk)
            coded.append(one)
        writer.finish(images.names)
    return _compressed(coding, images, coded, out.stat().st_size, whole=not begun)


def to_bytes(
    coding: Coding, images: ImageList, *, chunk: int, verify: bool, progress: Progress = None
) -> tuple[bytes, Compressed]:
    """Returns a file of the images, as `write_file` writes it.

    Raises:
        CodecError: a chunk does not decode to its images.
        DataError: a file is not an image of the model's shape.
    """
    chunk = min(chunk, most_images(coding.codec))
    with track(progress, "compressing", len(images)) as advance:
        coded = list(coded_chunks(coding, images, chunk, 0, verify, advance))
    data = pack_file(coding.header(chunk), [one.chunk for one in coded], images.names)
    return data, _compressed(coding, images, coded, len(data), whole=True)


@dataclass(frozen=True)
class CodedChunk:
    """A chunk, with its number of stored images and its net and initial bits."""

    chunk: Chunk
    stored: int
    bits: float
    initial: int


def coded_chunks(
    coding: Coding, images: ImageList, chunk: int, begun: int, verify: bool, advance: Advance
) -> Iterator[CodedChunk]:
    """Yields the chunks of `chunk` images from image `begun` on."""
    codec = coding.codec
    code, other = codec.chunk_code(), codec.chunk_code(_other_batch(codec))
    limits = Limits(chunk, codec.group, codec.model.dimensions)
    for first in range(begun, len(images), chunk):
        pixels = images.read(first, min(first + chunk, len(images)))
        payload, bits = code.encode(pixels, advance)
        written = payload.to_bytes()
        if verify and not np.array_equal(other.decode(payload_of(written, len(pixels), limits)), pixels):
            raise CodecError("a chunk does not decode to its images, and was not written. Try --profile portable.")
        made = Chunk(len(pixels), written, bytes.fromhex(pixel_sha256(pixels))[:DIGEST])
        yield CodedChunk(made, int((payload.stored > 0).sum()), bits, payload.initial_bits)


def _compressed(coding: Coding, images: ImageList, coded: list[CodedChunk], size: int, *, whole: bool) -> Compressed:
    """Returns the result; `whole` is whether all chunks are in `coded`."""
    values = len(images) * coding.codec.model.dimensions
    bits = [8 * size, sum(one.bits for one in coded), sum(one.initial for one in coded)]
    gross, net, initial = (count / values if values else None for count in bits)
    stored = sum(one.stored for one in coded)
    rates = (gross, net, initial) if whole else (gross, None, None)
    return Compressed(len(images), stored, size, images.bytes, *rates, str(coding))


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Extends errors of writing, such as a full disk, by how to continue with the written part."""
    try:
        yield
    except OSError as error:
        if not part_of(out).exists():
            raise
        raise CodecError(
            f"{error.filename}: {error.strerror}. Free space there, and run the same command again with --resume."
        ) from error


def _check_same(writer: Writer, images: ImageList, out: Path) -> None:
    """Raises CodecError if the chunks written by an interrupted process are not of these images."""
    first = 0
    for chunk in writer.written():
        if not pixel_sha256(images.read(first, first + chunk.images)).startswith(chunk.pixels_sha256.hex()):
            raise CodecError(f"{out}.part: was begun with other images. Give the same ones, or delete it.")
        first += chunk.images


def most_images(codec: Codec) -> int:
    """Returns the number of images in the largest chunk that readers accept."""
    return max(1, MAX_PIXELS // codec.model.dimensions)


def _other_batch(codec: Codec) -> int:
    """Returns the batch size of verification, which differs from that of encoding if the profile allows it."""
    return codec.batch // 2 + 1 if codec.profile == "portable" else codec.batch
