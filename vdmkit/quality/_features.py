# SPDX-License-Identifier: Apache-2.0
"""Features of images that need no trained network, for scoring samples.

A Frechet distance of these features is not FID, which is defined by Inception's features.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Real

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
