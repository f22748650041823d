# SPDX-License-Identifier: Apache-2.0
"""Features of images that need no trained network: what is compared when samples are scored.

None of them is Inception's: a Frechet distance of them is no FID.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Real

_PATCH, _FILTERS, _SEED = 4, 64, 0


def features_of(kind: str, images: Real[np.ndarray, "n h w c"], levels: int) -> Float[np.ndarray, "m d"]:
    """A row for each image, or for each patch; float64.

    Args:
        kind: one of FEATURES.
        levels: of the images, or 0 where they are continuous.
    """
    x = images.astype(np.float64)
    return FEATURES[kind](2 * (x + 0.5) / levels - 1 if levels else x)


def _pixels(x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
    """The image itself."""
    return x.reshape(len(x), -1)


def _patches(x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "m d"]:
    """Patches of 4x4 pixels side by side, each less its mean: what is near by, wherever it is."""
    n, h, w, c = x.shape
    p = min(_PATCH, h, w)
    x = x[:, : h // p * p, : w // p * p]
    patches = x.reshape(n, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5).reshape(-1, p * p, c)
    return (patches - patches.mean(1, keepdims=True)).reshape(len(patches), -1)


def _random(x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
    """Mean and spread over the image of 64 random 3x3 filters, rectified; the filters are always the same."""
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
