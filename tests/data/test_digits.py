# SPDX-License-Identifier: Apache-2.0
"""The digits and what every source promises."""

import dataclasses
import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vdmkit.data import Cifar10, Digits, Folder, Npz
from vdmkit.data.sources import identified
from vdmkit.errors import DataError


def _rows(pixels: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in pixels}


def test_split_is_the_documented_permutation() -> None:
    """The split is the one with which published figures are comparable."""
    order = np.random.RandomState(0).permutation(1797)
    expected = load_digits().images[order].astype(np.uint8)[..., None]
    np.testing.assert_array_equal(Digits().load("train").pixels, expected[:1500])
    np.testing.assert_array_equal(Digits().load("test").pixels, expected[-297:])


def test_validation_part_never_touches_the_test_set() -> None:
    """The validation part and the test set are disjoint."""
    source = Digits(validation=True)
    train, validation = source.load("train"), source.load("test")
    np.testing.assert_array_equal(np.concatenate([train.pixels, validation.pixels]), Digits().load("train").pixels)
    assert len(validation.pixels) == 300
    assert not _rows(validation.pixels) & _rows(Digits().load("test").pixels)


def test_only_the_true_test_set_is_called_published() -> None:
    """The validation part is not identified as the published set."""
    assert Digits().load("test").identity.published == "scikit-learn digits"
    validation = Digits(validation=True).load("test").identity
    assert validation.published is None
    assert "validation" in validation.name
    assert "not the published data set" in str(validation)


def test_levels_and_shape_are_those_of_the_pixels() -> None:
    """The declared levels and shape are those of the images."""
    source = Digits()
    images = source.load("train")
    assert images.pixels.shape[1:] == source.shape == (8, 8, 1)
    assert (images.pixels.max() + 1, images.levels) == (17, source.levels)


def test_identity_is_the_hash_of_the_pixels_in_order() -> None:
    """The hash depends on every pixel and on the order of the images."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    changed = pixels.copy()
    changed[3, 2, 1, 0] ^= 1
    versions = [pixels, changed, pixels[::-1], pixels[:4]]
    found = [identified(p, 256, name="a", split="test").identity for p in versions]
    assert found[0].sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert found[2].sha256 == hashlib.sha256(pixels[::-1].tobytes()).hexdigest()
    assert len({identity.sha256 for identity in found}) == len(versions)
    assert found[0] == dataclasses.replace(found[1], sha256=found[0].sha256)


def test_no_images_and_values_that_are_no_levels_are_refused() -> None:
    """Empty splits and values outside of the levels are refused."""
    pixels = np.full((2, 4, 4, 1), 17, np.uint8)
    with pytest.raises(DataError, match=r"a pixel is 17, expected 0\.\.16"):
        identified(pixels, 17, name="a", split="train")
    with pytest.raises(DataError, match="no images"):
        identified(pixels[:0], 17, name="a", split="train")


def test_constructors_read_nothing() -> None:
    """A source can be constructed on a machine without its data."""
    assert Cifar10(path="nowhere").shape == (32, 32, 3)
    assert Folder(train="nowhere", test="nowhere", shape=(64, 64, 3)).shape == (64, 64, 3)
    assert Npz(path="nowhere", levels=8).levels == 8


def test_labels_belong_to_their_images():
    """Labels are shuffled with the images: a nearest-mean classifier is right for 9 of 10."""
    train, test = (Digits().load(split) for split in ("train", "test"))
    means = np.stack([train.pixels[train.labels == label].mean(0) for label in range(Digits().classes)])
    nearest = ((test.pixels[:, None] - means) ** 2).sum((2, 3, 4)).argmin(1)
    assert (nearest == test.labels).mean() > 0.8
