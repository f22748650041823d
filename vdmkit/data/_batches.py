# SPDX-License-Identifier: Apache-2.0
"""The stream of training batches: batch number `step` is a pure function of (seed, step).

All epochs are one long line of shuffled image numbers, cut into global batches, so a batch may hold the end
of one epoch and the start of the next, and every image occurs equally often. A process takes its rows of the
global batch, so the batches do not depend on the number of processes.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from vdmkit.data._augmentation import AbstractAugmentation, augment
from vdmkit.data._randomness import Purpose, generator
from vdmkit.data._source import Images
from vdmkit.errors import DataError

if TYPE_CHECKING:
    import grain

# One thread draws batches faster than more do, while arrays are small (measured: 1.75 M images/s, 0.6 M with 16).
_THREADS = 1
_BUFFERED_BATCHES = 4


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
        return 2**62 // self.batch_size  # endless, while positions in the line fit in 64 bits

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rows = self._rows()
        numbers = image_numbers(index, rows, batch_size=self.batch_size, count=len(self.images.pixels), seed=self.seed)
        pixels, labels = self.images.pixels[numbers], self.images.labels
        rng = generator(self.seed, Purpose.AUGMENT, index)
        pixels, augmented = augment(pixels, self.augmentations, rng, n_global=self.batch_size, rows=rows)
        known = {} if labels is None else {"label": labels[numbers].astype(np.int32)}
        return {"image": pixels, "augmented": augmented.astype(np.float32), **known}

    def _rows(self) -> slice:
        size, n, p = self.batch_size, self.process_count, self.process_index
        return slice(p * size // n, (p + 1) * size // n)


def image_numbers(index: int, rows: slice, *, batch_size: int, count: int, seed: int) -> Int[np.ndarray, " b"]:
    """Returns the numbers of the images in some rows of global batch `index`, of a training set of `count` images."""
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
