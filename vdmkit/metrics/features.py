# SPDX-License-Identifier: Apache-2.0
"""Features of images that need no trained network, for scoring samples.

A Frechet distance of these features is not FID, which is defined by Inception's features.

Inception's features, whose Frechet distance is FID. The user supplies the file of weights.

The training images nearest to samples, which show whether a model reproduces its training data.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
from jaxtyping import Float, Int, Real, UInt8

from vdmkit.data.sources import Pixels, blocks
from vdmkit.errors import DataError, VdmkitError
from vdmkit.io import file_sha256, not_a_file
from vdmkit.progress import Progress, track

_PATCH, _FILTERS, _SEED = 4, 64, 0


def features_of(kind: str, images: Real[np.ndarray, "n h w c"], levels: int) -> Float[np.ndarray, "m d"]:
    """Returns features in float64, a row for each image or for each patch.

    Args:
        kind: One of FEATURES.
        images: The images.
        levels: Number of levels of the images, or 0 if they are continuous.
    """
    x = images.astype(np.float64)
    return FEATURES[kind](2 * (x + 0.5) / levels - 1 if levels else x)


def _pixels(x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
    return x.reshape(len(x), -1)


def _patches(x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "m d"]:
    """Returns adjacent patches of 4x4 pixels, each minus its mean, which describe local structure at any position."""
    n, h, w, c = x.shape
    p = min(_PATCH, h, w)
    x = x[:, : h // p * p, : w // p * p]
    patches = x.reshape(n, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5).reshape(-1, p * p, c)
    return (patches - patches.mean(1, keepdims=True)).reshape(len(patches), -1)


def _random(x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
    """Returns mean and standard deviation over the image of the outputs of 64 fixed random 3x3 filters with ReLU."""
    _, h, w, c = x.shape
    rng = np.random.default_rng(_SEED)
    filters = rng.standard_normal((3, 3, c, _FILTERS)) / np.sqrt(9 * c)
    bias = rng.standard_normal(_FILTERS) / 2
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [padded[:, i : i + h, j : j + w] @ filters[i, j] for i in range(3) for j in range(3)]
    maps = np.maximum(sum(shifted) + bias, 0)
    return np.concatenate([maps.mean((1, 2)), maps.std((1, 2))], axis=1)


FEATURES: dict[str, Callable[[Float[np.ndarray, "n h w c"]], Float[np.ndarray, "m d"]]] = {
    "pixels": _pixels,
    "patches": _patches,
    "random": _random,
}


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


def nearest(
    samples: Real[np.ndarray, "m h w c"], images: Pixels
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Returns the index of the nearest image to each sample, and the root mean square difference of their values."""
    flat = samples.reshape(len(samples), -1).astype(np.float64)
    index, distance, first = np.zeros(len(flat), int), np.full(len(flat), np.inf), 0
    for block in blocks(images):
        found = scipy.spatial.distance.cdist(flat, block.reshape(len(block), -1).astype(np.float64))
        closer = found.min(1) < distance
        index = np.where(closer, first + found.argmin(1), index)
        distance = np.minimum(distance, found.min(1))
        first += len(block)
    return index, distance / np.sqrt(flat.shape[1])
