# SPDX-License-Identifier: Apache-2.0
"""Which images a model was trained on, so that a bound on them is never reported as a test bound."""

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Real, UInt64

from vdmkit.errors import CheckpointError
from vdmkit.files import whole_file

Hashes = UInt64[np.ndarray, " n"]


def image_hashes(pixels: Real[np.ndarray, "n h w c"]) -> Hashes:
    """64 bits of BLAKE2b of every image's bytes."""
    digests = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in pixels)
    return np.frombuffer(b"".join(digests), "<u8")


def count_trained_on(pixels: Real[np.ndarray, "m h w c"], trained_on: Hashes | None) -> int | None:
    """How many of these images are among those trained on; None if that is not known."""
    return None if trained_on is None else int(np.isin(image_hashes(pixels), trained_on).sum())


def write_hashes(path: Path, hashes: Hashes) -> None:
    """As a .npy file."""
    with whole_file(path) as part, part.open("wb") as file:
        np.save(file, hashes)


def read_hashes(path: Path) -> Hashes | None:
    """None if there is no file: what an imported model was trained on is not known."""
    if not path.exists():
        return None
    try:
        return np.load(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error}). Run the recipe again to write it anew.") from error
