# SPDX-License-Identifier: Apache-2.0
"""The paper's augmentations have the paper's probabilities, and only move pixels."""

import itertools

import numpy as np
import pytest

from vdmkit.data import AbstractAugmentation, Flip, Images, PermuteChannels, Rotate90
from vdmkit.data.batches import BatchSource, augment
from vdmkit.data.sources import identified
from vdmkit.errors import DataError
from vdmkit.registry import registry

N = 20_000
FLIP, ROTATE, PERMUTE = Flip(), Rotate90(), PermuteChannels()


def _augmented(augmentations: tuple[AbstractAugmentation, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of distinct pixels, N random versions of it, and their flags."""
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    images = identified(image[None], 256, name="made", split="train")
    batch = BatchSource(images, augmentations, N, 0, 0, 1)[0]
    return image, batch["image"], batch["augmented"]


def _frequency(versions: np.ndarray, image: np.ndarray) -> float:
    return float((versions == image).all(axis=(1, 2, 3)).mean())


def _assert_probability(frequency: float, probability: float) -> None:
    # 4 standard errors: a right implementation fails for 6e-5 of the seeds, and the seed is fixed
    assert abs(frequency - probability) < 4 * np.sqrt(probability * (1 - probability) / N)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("augmentations", "probability"),
    [((), 1.0), ((FLIP,), 1 / 2), ((FLIP, ROTATE), 1 / 4), ((FLIP, ROTATE, PERMUTE), 1 / 8)],
)
def test_flag_is_zero_when_no_coin_came_up(augmentations: tuple, probability: float) -> None:
    """Coins are fair and independent, and the flag is 1 iff an augmentation was applied."""
    image, versions, flag = _augmented(augmentations)
    assert flag.dtype == np.float32
    assert set(np.unique(flag)) <= {0.0, 1.0}
    if augmentations:
        _assert_probability(float((flag == 0).mean()), probability)
    else:
        assert not flag.any()
    assert (versions[flag == 0] == image).all()


def test_flip_is_left_to_right() -> None:
    """`flip` mirrors the width, never the height."""
    image, versions, flag = _augmented((FLIP,))
    assert (versions[flag == 1] == image[:, ::-1]).all()


def test_rotations_are_equally_likely() -> None:
    """Each of the three rotations has probability 1/6."""
    image, versions, _ = _augmented((ROTATE,))
    for k in (1, 2, 3):
        _assert_probability(_frequency(versions, np.rot90(image, k)), 1 / 6)


@pytest.mark.costly
def test_channel_permutations_are_equally_likely_and_identity_counts() -> None:
    """The identity permutation is drawn too (P = 1/2 + 1/12), and counts as augmented."""
    image, versions, flag = _augmented((PERMUTE,))
    for order in itertools.permutations(range(3)):
        unmoved = order == (0, 1, 2)
        _assert_probability(_frequency(versions, image[..., order]), 1 / 12 + unmoved / 2)
    _assert_probability(float(((versions == image).all(axis=(1, 2, 3)) & (flag == 1)).mean()), 1 / 12)


def test_pixels_are_only_moved() -> None:
    """Augmentations permute the values of an image."""
    image, versions, _ = _augmented((FLIP, ROTATE, PERMUTE))
    assert versions.dtype == np.uint8
    assert (np.sort(versions.reshape(N, -1), axis=1) == np.sort(image.ravel())).all()


def test_source_images_are_not_written_to(images: Images) -> None:
    """Augmenting a batch leaves the data set unchanged."""
    before = images.pixels.copy()
    rng = np.random.default_rng(0)
    moved, _ = augment(images.pixels, (FLIP, ROTATE, PERMUTE), rng, n_global=10, rows=slice(10))
    assert (moved != before).any()
    np.testing.assert_array_equal(images.pixels, before)


def test_rotation_of_oblong_images_is_refused_at_once() -> None:
    """Augmentations that do not suit the images are refused before training."""
    images = identified(np.zeros((1, 4, 6, 1), np.uint8), 256, name="made", split="train")
    with pytest.raises(DataError, match="rotate90: images are 6x4, expected square"):
        BatchSource(images, (ROTATE,), 2, 0, 0, 1)


def test_names_in_recipes() -> None:
    """A recipe names an augmentation without parameters."""
    components = registry("augmentation").components
    assert {"flip", "rotate90", "permute_channels"} <= components.keys()
    assert not any(components[name].parameters for name in ("flip", "rotate90", "permute_channels"))
