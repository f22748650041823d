# SPDX-License-Identifier: Apache-2.0
"""Inception's features, whose Frechet distance is FID. The user supplies the file of weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Real, UInt8

from vdmkit.errors import DataError, VdmkitError
from vdmkit.io import file_sha256, not_a_file
from vdmkit.progress import Progress, track

Extractor = Callable[[UInt8[np.ndarray, "n h w 3"]], Float[np.ndarray, "n d"]]
"""A function that returns features of 8-bit RGB images, one row per image."""
_NAME = "weights-inception-2015-12-05-6726825d.pth"
_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_BATCH = 32


def load_inception(path: Path, progress: Progress = None) -> Extractor:
    """Returns the extractor of the 2,048 pooled features that define FID, in float64, computed by torch-fidelity.

    Heusel et al. 2017, arXiv 1706.08500. It runs on the CPU in float32, to avoid an accelerator's rounding, and takes
    a fraction of a second per image.

    Raises:
        DataError: the file is not the published one.
        VdmkitError: torch-fidelity is not installed.
    """
    _check(path)  # before loading, because a malicious file of weights can make torch execute code
    try:
        import torch  # pyright: ignore[reportMissingImports]
        from torch_fidelity import FeatureExtractorInceptionV3  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise VdmkitError(
            f"Inception needs torch-fidelity, which cannot be imported ({error}). Install the extra `fid`: "
            "`uv run --extra fid vdmkit quality ...` in a checkout, or `uv pip install 'vdmkit[fid]'`."
        ) from error
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))

    def features(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        rows = []
        with track(progress, "inception", len(images)) as advance:
            for first in range(0, len(images), _BATCH):
                batch = images[first : first + _BATCH].transpose(0, 3, 1, 2).copy()
                rows.append(network(torch.from_numpy(batch))[0].numpy())
                advance(len(batch))
        return np.concatenate(rows).astype(np.float64)

    return features


def as_rgb(images: Real[np.ndarray, "n h w c"], levels: int) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns the input of Inception: levels 0..levels-1 scaled to 0..255 and rounded, gray repeated in three channels.

    Raises:
        DataError: the images are continuous, or neither gray nor RGB.
    """
    channels = images.shape[-1]
    if levels == 0 or channels not in (1, 3):
        found = f"{channels} channels" if levels else "continuous data (levels = 0)"
        raise DataError(f"FID needs gray or RGB images with levels, found {found}. Score them without Inception.")
    if levels != 256:
        images = np.rint(images * (255 / (levels - 1)))
    return np.repeat(images.astype(np.uint8), 3 // channels, axis=-1)


def _check(path: Path) -> None:
    found = not_a_file(path) or f"SHA-256 {file_sha256(path)}"
    if found != f"SHA-256 {_SHA256}":
        raise DataError(
            f"{path}: {found}, expected SHA-256 {_SHA256}: only distances by these weights are FID. "
            f"They are the file {_NAME} of torch-fidelity's release v0.2.0."
        )
