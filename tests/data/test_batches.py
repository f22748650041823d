# SPDX-License-Identifier: Apache-2.0
"""The stream of batches: complete, reproducible, and the same for any number of processes."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from vdmkit.data import Flip, Images, PermuteChannels, Rotate90
from vdmkit.data.batches import BatchSource, Purpose, batches, generator
from vdmkit.data.identity import level_counts
from vdmkit.errors import DataError

AUGMENTATIONS = (Flip(), Rotate90(), PermuteChannels())


def _numbers(pixels: np.ndarray) -> np.ndarray:
    """Which of the ten images each is: pixel 0 of image i is 16 i."""
    return pixels[:, 0, 0, 0] // 16


def _assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize("batch_size", [1, 4, 10, 25])
def test_each_epoch_is_another_permutation(images: Images, batch_size: int) -> None:
    """Each image occurs once an epoch, also where a batch straddles epochs or holds several."""
    stream = itertools.islice(batches(images, batch_size=batch_size, seed=0), 100 // batch_size)
    epochs = np.concatenate([_numbers(batch["image"]) for batch in stream]).reshape(10, 10)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (10, 1)))
    assert len(np.unique(epochs, axis=0)) == 10  # 10! orders: two of ten alike by chance in 1 of 80,000 seeds


def test_labels_stay_with_their_images(images: Images) -> None:
    """Each image of a batch has its own label."""
    labelled = dataclasses.replace(images, labels=np.arange(10) % 3)
    for batch in itertools.islice(batches(labelled, batch_size=4, seed=0), 5):
        np.testing.assert_array_equal(batch["label"], _numbers(batch["image"]) % 3)
    assert "label" not in next(batches(images, batch_size=4, seed=0))


def test_resume_is_exact(images: Images) -> None:
    """A restored iterator yields the batches of an uninterrupted one."""
    stream = batches(images, AUGMENTATIONS, batch_size=4, seed=3)
    for _ in range(7):
        next(stream)
    state = json.loads(json.dumps(stream.get_state()))
    rest = list(itertools.islice(stream, 9))
    resumed = batches(images, AUGMENTATIONS, batch_size=4, seed=3)
    resumed.set_state(state)
    for left, right in zip(rest, itertools.islice(resumed, 9), strict=True):
        _assert_equal(left, right)


def test_parts_of_four_processes_are_the_batch_of_one(images: Images) -> None:
    """The global batch does not depend on the number of processes, also after a resume."""
    whole = batches(images, AUGMENTATIONS, batch_size=8, seed=3)
    for _ in range(5):
        next(whole)
    parts = [batches(images, AUGMENTATIONS, batch_size=8, seed=3, process_index=p, process_count=4) for p in range(4)]
    for part in parts:
        part.set_state(whole.get_state())
    for _ in range(6):
        pieces = [next(part) for part in parts]
        assert pieces[0]["image"].shape == (2, 4, 4, 3)
        _assert_equal({name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}, next(whole))


def test_a_batch_is_a_function_of_seed_and_step(images: Images) -> None:
    """A batch depends on seed and step alone, not on threads, prefetching or earlier batches."""
    source = BatchSource(images, AUGMENTATIONS, 4, 3, 0, 1)
    for step, batch in enumerate(itertools.islice(batches(images, AUGMENTATIONS, batch_size=4, seed=3), 12)):
        _assert_equal(batch, source[step])
    sources = [BatchSource(images, AUGMENTATIONS, 100, seed, 0, 1) for seed in (3, 4)]
    drawn = [source[step] for source in sources for step in range(5)]
    for name in ("image", "augmented"):
        assert len({batch[name].tobytes() for batch in drawn}) == 10


def test_augmentations_do_not_change_which_images_come(images: Images) -> None:
    """The order of images is the same with and without augmentation."""
    plain = BatchSource(images, (), 40, 3, 0, 1)[2]["image"]
    augmented = BatchSource(images, AUGMENTATIONS, 40, 3, 0, 1)[2]["image"]
    np.testing.assert_array_equal(plain.min(axis=(1, 2, 3)), augmented.min(axis=(1, 2, 3)))


def test_shuffle_and_augmentation_share_no_random_numbers() -> None:
    """Epoch n and step n draw from different streams."""
    streams = [generator(seed, purpose, 1).random(1000) for seed in (0, -1) for purpose in Purpose]
    assert len(np.unique(np.concatenate(streams))) == 4000


@pytest.mark.parametrize(("batch_size", "processes"), [(6, 4), (2, 4), (0, 1), (-4, 1)])
def test_batch_sizes_that_do_not_divide_are_refused(images: Images, batch_size: int, processes: int) -> None:
    """A batch size that is not a multiple of the number of processes is refused."""
    with pytest.raises(DataError, match=f"training.batch_size = {batch_size}: .* multiple of {processes}"):
        batches(images, batch_size=batch_size, seed=0, process_count=processes)


def test_level_counts_are_histograms_of_each_pixel(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels are counted by pixel and channel."""
    monkeypatch.setattr("vdmkit.data.sources._BLOCK_VALUES", 4 * images.pixels[0].size)
    counts = level_counts(images)
    expected = (images.pixels[..., None] == np.arange(256)).sum(axis=0)
    np.testing.assert_array_equal(counts, expected)
    assert counts.dtype == np.int32
