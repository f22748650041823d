# SPDX-License-Identifier: Apache-2.0
"""The stream of training batches, and the augmentations: batch number `step` is a pure function of (seed, step).

The shuffled epochs are concatenated and cut into global batches, so a batch may hold the end of one epoch and the start
of the next, and every image occurs equally often. Each process takes its own rows of the global batch, so the batches
do not depend on the number of processes.

The augmentations are those of Kingma et al. 2021, arXiv 2107.00630v6, section 5; details as in the authors' code.
"""

import abc
import enum
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int, Real

from vdmkit.data.sources import Images
from vdmkit.errors import DataError
from vdmkit.registry import define_kind, register

if TYPE_CHECKING:
    import grain

# One thread draws batches faster than more do, while arrays are small (measured: 1.75 M images/s, 0.6 M with 16).
_THREADS = 1
_BUFFERED_BATCHES = 4

Move = Callable[[np.ndarray], np.ndarray]


class AbstractAugmentation(abc.ABC):
    """A set of moves. Each image gets one, drawn uniformly, with probability 1/2.

    A subclass defines `moves`. A move maps images (n, h, w, c), uint8 or float32, to images of the same shape; it
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


def batches(
    images: Images,
    augmentations: Sequence[AbstractAugmentation] = (),
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> "grain.DatasetIterator":
    """Returns an endless iterator over training batches, whose state grain saves and restores.

    Each element is {"image": uint8 (b, h, w, c), "augmented": float32 (b,), 1 if an augmentation was applied,
    "label": int32 (b,), if the images have labels}, with b = batch_size / process_count. A batch may be larger
    than the number of images.

    Args:
        images: The training images.
        augmentations: Augmentations, applied in this order.
        batch_size: Number of images in the global batch, over all processes.
        seed: Seed of the shuffle and the augmentations.
        process_index: Number of this process, 0..process_count-1.
        process_count: Number of processes that share the global batch.

    Raises:
        DataError: the batch size is not a positive multiple of the number of processes, or an augmentation
            does not suit the images.
    """
    import grain

    source = BatchSource(images, tuple(augmentations), batch_size, seed, process_index, process_count)
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BUFFERED_BATCHES)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))


@dataclass(frozen=True)
class BatchSource:
    """Random access to the batches; element i is this process's part of the global batch of step i."""

    images: Images
    augmentations: tuple[AbstractAugmentation, ...]
    batch_size: int
    seed: int
    process_index: int
    process_count: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise DataError(
                f"training.batch_size = {self.batch_size}: expected a positive multiple of {self.process_count}, "
                "the number of processes, as it is the size of the global batch."
            )
        for augmentation in self.augmentations:
            augmentation.moves(self.images.pixels.shape[1:])

    def __len__(self) -> int:
        return 2**62 // self.batch_size  # effectively endless; larger positions would overflow 64 bits

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        size, n, p = self.batch_size, self.process_count, self.process_index
        rows = slice(p * size // n, (p + 1) * size // n)
        numbers = image_numbers(index, rows, batch_size=size, count=len(self.images.pixels), seed=self.seed)
        pixels, labels = self.images.pixels[numbers], self.images.labels
        rng = generator(self.seed, Purpose.AUGMENT, index)
        pixels, augmented = augment(pixels, self.augmentations, rng, n_global=size, rows=rows)
        label = {} if labels is None else {"label": labels[numbers].astype(np.int32)}
        return {"image": pixels, "augmented": augmented.astype(np.float32), **label}


def image_numbers(index: int, rows: slice, *, batch_size: int, count: int, seed: int) -> Int[np.ndarray, " b"]:
    """Returns the image indices in some rows of global batch `index`, for a training set of `count` images."""
    positions = index * batch_size + np.arange(rows.start, rows.stop)
    epochs, places = np.divmod(positions, count)
    numbers = np.empty_like(places)
    for epoch in np.unique(epochs):
        within = epochs == epoch
        numbers[within] = _shuffled(seed, int(epoch), count)[places[within]]
    return numbers


@functools.lru_cache(maxsize=2)  # a batch that straddles two epochs needs both
def _shuffled(seed: int, epoch: int, count: int) -> Int[np.ndarray, " count"]:
    return generator(seed, Purpose.SHUFFLE, epoch).permutation(count)


def augment(
    pixels: Real[np.ndarray, "n h w c"],
    augmentations: Sequence[AbstractAugmentation],
    rng: np.random.Generator,
    *,
    n_global: int,
    rows: slice,
) -> tuple[Real[np.ndarray, "n h w c"], Bool[np.ndarray, " n"]]:
    """Augments some rows of a global batch; the result for a row does not depend on which other rows are given.

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
        coin = rng.random(n_global) < 0.5
        choices = np.where(coin, rng.integers(len(moves), size=n_global), -1)[rows]  # -1: not augmented
        moved = pixels.copy()
        for number, move in enumerate(moves):
            moved[choices == number] = move(pixels[choices == number])
        pixels = moved
        augmented |= choices >= 0
    return pixels, augmented


def equal_batches(count: int, batch_size: int) -> Iterator[Int[np.ndarray, " b"]]:
    """Yields the indices of `count` images in batches of equal size (one compilation); the last repeats some."""
    size = min(batch_size, count)
    for start in range(0, count, size):
        yield np.resize(np.arange(start, min(start + size, count)), size)


class Purpose(enum.IntEnum):
    """Purposes of random numbers; each has its own stream."""

    SHUFFLE = 0  # index = epoch
    AUGMENT = 1  # index = step


def generator(seed: int, purpose: Purpose, index: int) -> np.random.Generator:
    """Returns Philox keyed by (seed, index); the purpose is the counter's highest word, which draws never reach."""
    key = np.array([seed % 2**64, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], np.uint64)))
