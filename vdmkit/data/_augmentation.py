# SPDX-License-Identifier: Apache-2.0
"""The paper's augmentations: each is a set of pixel moves, one of which is applied with probability 1/2.

Kingma et al. 2021, arXiv 2107.00630v6, section 5; details as in the authors' code.
"""

import abc
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Int, Real

from vdmkit.errors import DataError
from vdmkit.registry import define_kind, register

Move = Callable[[np.ndarray], np.ndarray]


class AbstractAugmentation(abc.ABC):
    """A set of moves. Each image gets one, drawn uniformly, with probability 1/2.

    An implementer supplies `moves`. A move takes images (n, h, w, c), uint8 or float32, to images of the same shape; it
    may be the identity, and the image still counts as augmented.
    """

    @abc.abstractmethod
    def moves(self, shape: tuple[int, int, int]) -> Sequence[Move]:
        """Returns the moves for images of shape (h, w, c). Raises DataError if there are none for this shape."""


define_kind("augmentation", "random moves of the pixels of training images", AbstractAugmentation)


@register("augmentation", "flip")
class Flip(AbstractAugmentation):
    """Flips left and right with probability 1/2."""

    def moves(self, shape: tuple[int, int, int]) -> Sequence[Move]:
        return [partial(np.flip, axis=2)]


@register("augmentation", "rotate90")
class Rotate90(AbstractAugmentation):
    """Rotates by 90, 180 or 270 degrees with probability 1/2."""

    def moves(self, shape: tuple[int, int, int]) -> Sequence[Move]:
        height, width, _ = shape
        if height != width:
            raise DataError(
                f"augmentation rotate90: images are {width}x{height}, expected square ones. Remove it from the recipe."
            )
        return [partial(np.rot90, k=k, axes=(1, 2)) for k in (1, 2, 3)]


@register("augmentation", "permute_channels")
class PermuteChannels(AbstractAugmentation):
    """Permutes the channels at random (the identity included) with probability 1/2."""

    def moves(self, shape: tuple[int, int, int]) -> Sequence[Move]:
        return [partial(np.take, indices=order, axis=3) for order in itertools.permutations(range(shape[2]))]


def draw_choices(rng: np.random.Generator, n_images: int, n_moves: int) -> Int[np.ndarray, " n"]:
    """Returns the number of each image's move, or -1 for images that are not augmented."""
    coin = rng.random(n_images) < 0.5
    return np.where(coin, rng.integers(n_moves, size=n_images), -1)


def apply_moves(
    pixels: Real[np.ndarray, "n h w c"], moves: Sequence[Move], choices: Int[np.ndarray, " n"]
) -> Real[np.ndarray, "n h w c"]:
    """Applies to each image the move of its number."""
    moved = pixels.copy()
    for number, move in enumerate(moves):
        rows = choices == number
        moved[rows] = move(pixels[rows])
    return moved


def augment(
    pixels: Real[np.ndarray, "n h w c"],
    augmentations: Sequence[AbstractAugmentation],
    rng: np.random.Generator,
    *,
    n_global: int,
    rows: slice,
) -> tuple[Real[np.ndarray, "n h w c"], Bool[np.ndarray, " n"]]:
    """Augments some rows of a global batch; the result for a row does not depend on the other rows asked for.

    Args:
        pixels: The images of these rows.
        augmentations: Augmentations, applied in this order.
        rng: Draws for the whole global batch, so that its state does not depend on `rows`.
        n_global: Number of images in the global batch.
        rows: The rows of the global batch that `pixels` holds.

    Returns:
        The augmented images, and for each whether an augmentation was applied.
    """
    augmented = np.zeros(len(pixels), bool)
    for augmentation in augmentations:
        moves = augmentation.moves(pixels.shape[1:])
        choices = draw_choices(rng, n_global, len(moves))[rows]
        pixels = apply_moves(pixels, moves, choices)
        augmented |= choices >= 0
    return pixels, augmented
