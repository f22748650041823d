# SPDX-License-Identifier: Apache-2.0
"""Compression in Python: a model and arrays, without a run folder."""

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, get_args, overload

import numpy as np
from jaxtyping import UInt8

from vdmkit.arguments import MAX_STEPS
from vdmkit.data.folder import ImageList
from vdmkit.errors import DataError, RecipeError
from vdmkit.likelihood import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress
from vdmkit_codec.codec import Profile, codec_of
from vdmkit_codec.coding import default_bound, fingerprint, make_coding
from vdmkit_codec.container import Given, open_reader
from vdmkit_codec.decoding import images_of_file
from vdmkit_codec.encoding import to_bytes
from vdmkit_codec.payload import MAX_PIXELS


def compress(
    model: DiffusionModel,
    images: np.ndarray,
    *,
    steps: int | None = None,
    bound: VariationalBound | None = None,
    profile: Profile = "portable",
    group: int = 64,
    chunk: int = 1024,
    seed: int = 0,
    names: Sequence[str] | None = None,
    verify: bool = True,
    progress: Progress = None,
) -> bytes:
    """Compresses images without loss, into the bytes of a .vdmz file.

    Args:
        model: A trained model.
        images: Levels, uint8 (n, h, w, c).
        steps: T. By default 250 for the Gaussian kernel; for the mixture, which models of levels take, it depends on
            the number of levels: 8 for digits, 15 for 256 levels.
        bound: The T-step bound whose rate the file achieves, to choose a different kernel or grid; it defines the
            steps.
        profile: "portable" computes the network in float64; "host" in float32, for this machine alone.
        group: Largest number of images coded together.
        chunk: Number of images in a chunk, which is decoded as a whole.
        seed: Seed of the initial bits.
        names: A name for each image.
        verify: Whether to check each chunk by decoding it.
        progress: As in `vdmkit.sample`.

    Raises:
        DataError: the images are not uint8 of the model's shape, or their number differs from that of the names.
        RecipeError: a setting is out of its range, or the model or the bound does not support coding.
        CodecError: a chunk does not decode to its images.
    """
    images = np.asarray(images)
    check_images(images, names, model.shape)
    check_settings(profile, steps=steps, group=group, chunk=chunk, seed=seed)
    bound = bound or default_bound(model, steps)
    coding = make_coding(model, bound, profile=profile, group=group, seed=seed, checkpoint={})
    listed = ImageList(model.shape, None if names is None else list(names), [], images)
    return to_bytes(coding, listed, chunk=chunk, verify=verify, progress=progress)[0]


def decompress(
    data: Given, model: DiffusionModel, *, max_pixels: int = MAX_PIXELS, jobs: int = 1, progress: Progress = None
) -> UInt8[np.ndarray, "n h w c"]:
    """Returns the images in the bytes of a .vdmz file.

    Args:
        data: What `compress` returned, or the path of a file.
        model: The model that it was compressed with.
        max_pixels: Largest number of values in a chunk.
        jobs: Number of chunks that are decoded concurrently.
        progress: As in `vdmkit.sample`.

    Raises:
        CodecError: the data are damaged, or were compressed with a different model.
    """
    with open(data, model, max_pixels=max_pixels) as archive:
        return archive.read(0, len(archive), jobs=jobs, progress=progress)


class Archive:
    """An open .vdmz file as a sequence of images, made by `open`; it decodes the chunks that it needs.

    Attributes:
        names: A name for each image, or None.
    """

    def __init__(self, given: Given, model: DiffusionModel, max_pixels: int) -> None:
        check_settings(max_pixels=max_pixels)
        self._stack = ExitStack()
        self._shape = model.shape
        with self._stack:
            self._reader = self._stack.enter_context(open_reader(given, max_pixels=max_pixels))
            self._codec = codec_of(self._reader.header, model, fingerprint())
            self._stack = self._stack.pop_all()
        self.names: list[str] | None = self._reader.names

    def __len__(self) -> int:
        return self._reader.images

    @overload
    def __getitem__(self, which: int) -> UInt8[np.ndarray, "h w c"]: ...
    @overload
    def __getitem__(self, which: slice) -> UInt8[np.ndarray, "n h w c"]: ...
    def __getitem__(self, which: int | slice) -> UInt8[np.ndarray, "..."]:
        """Returns an image by its number, or those of a slice."""
        if isinstance(which, slice):
            chosen = range(len(self))[which]
            if not chosen:
                return np.zeros((0, *self._shape), np.uint8)
            low = min(chosen)
            return self.read(low, max(chosen) + 1)[[number - low for number in chosen]]
        number = range(len(self))[which]
        return self.read(number, number + 1)[0]

    def read(self, start: int, stop: int, *, jobs: int = 1, progress: Progress = None) -> UInt8[np.ndarray, "n h w c"]:
        """Returns images start, ..., stop - 1, with `jobs` chunks decoded concurrently."""
        check_settings(jobs=jobs)
        found = images_of_file(self._codec, self._reader, range(start, stop), jobs=jobs, progress=progress)
        parts = [images for _, images in found if len(images)]
        return np.concatenate(parts) if parts else np.zeros((0, *self._shape), np.uint8)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open(given: Given, model: DiffusionModel, *, max_pixels: int = MAX_PIXELS) -> Archive:
    """Opens a .vdmz file, or its bytes, to read some of its images. It is closed by `with`, or by `close`.

    Raises:
        CodecError: it is not a .vdmz file, is damaged, or was compressed with a different model.
    """
    return Archive(given, model, max_pixels)


_RANGES = {
    "steps": (1, MAX_STEPS),
    "group": (1, 65535),
    "chunk": (1, 65535),
    "seed": (0, 2**64 - 1),
    "max_pixels": (1, 2**63 - 1),
    "jobs": (1, 1024),
}


def check_settings(profile: str = "portable", **numbers: Any) -> None:
    """Raises RecipeError if there is no such profile, or a number is out of its range. Steps may be None."""
    if profile not in get_args(Profile):
        raise RecipeError(f"profile = {profile!r}: expected one of {', '.join(get_args(Profile))}.")
    for name, value in numbers.items():
        low, high = _RANGES[name]
        if name == "steps" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise RecipeError(f"{name} = {value!r}: expected a whole number from {low} to {high:,}.")


def check_images(images: np.ndarray, names: Sequence[str] | None, shape: tuple[int, int, int]) -> None:
    """Raises DataError if the images are not uint8 of this shape, or the names are not one for each."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise DataError(
            f"images: {images.dtype} {images.shape}; expected uint8 (n, {expected}), as the model's images."
        )
    if names is None:
        return
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise DataError("names: expected a list of texts, one for each image.")
    if len(names) != len(images):
        raise DataError(f"{len(names)} names for {len(images)} images. Give one for each, or none.")
