# SPDX-License-Identifier: Apache-2.0
"""Copies and near copies of training images are found, and other images are not taken for copies."""

from dataclasses import replace

import numpy as np
import pytest

from vdmkit.data import Digits, GaussianData, Images, MixtureData
from vdmkit.data.identity import Copies, copies_of, fingerprints_of, groups_of
from vdmkit.data.sources import identified

COUNT = 300


def with_pixels(images: Images, pixels: np.ndarray) -> Images:
    return replace(images, pixels=pixels.astype(images.pixels.dtype), labels=None)


def one_value_changed(pixels: np.ndarray, levels: int) -> np.ndarray:
    """Each image with one value, of its own, as far off as it can be."""
    rows = pixels.reshape(len(pixels), -1).copy()
    places = np.arange(len(rows)), np.random.default_rng(0).integers(0, rows.shape[1], len(rows))
    rows[places] = np.where(rows[places] < levels / 2, levels - 1, 0) if levels else rows[places] + 1
    return rows.reshape(pixels.shape)


@pytest.fixture(scope="module")
def colour() -> tuple[Images, Images]:
    """Smooth colour images of 256 levels, to train and to test on."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (600, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    pixels = (coarse + rng.normal(size=coarse.shape)).clip(0, 255).astype(np.uint8)
    train, test = (identified(part, 256, name="mine", split="test") for part in (pixels[:400], pixels[400:]))
    return train, test


def _continuous() -> GaussianData:
    return GaussianData(shape=(8, 8, 1), levels=0, basis="cosine")


@pytest.mark.parametrize("source", [Digits(), _continuous()])
def test_a_changed_value_leaves_a_near_copy(source) -> None:
    """Training images with one value changed are near copies."""
    train = source.load("train")
    changed = with_pixels(train, one_value_changed(train.pixels[:COUNT], train.levels))
    assert copies_of(fingerprints_of(changed), fingerprints_of(train)) == Copies(exact=0, near=COUNT, held_out=False)


def test_noise_of_one_level_leaves_a_near_copy(colour) -> None:
    """With noise of one level, 9 of 10 copies are found, and the set is marked."""
    train, _ = colour
    noise = np.random.default_rng(1).integers(-1, 2, train.pixels.shape)
    found = copies_of(fingerprints_of(with_pixels(train, (train.pixels + noise).clip(0, 255))), fingerprints_of(train))
    assert found.near is not None
    assert found.near > 0.9 * len(train.pixels)
    assert found.held_out is False


def test_copies_are_counted_apart() -> None:
    """Exact and near copies are counted separately, and either marks the set."""
    train, test = Digits().load("train"), Digits().load("test")
    mixed = np.concatenate([train.pixels[:5], one_value_changed(train.pixels[5:12], 17), test.pixels[:50]])
    assert copies_of(fingerprints_of(with_pixels(test, mixed)), fingerprints_of(train)) == Copies(5, 7, held_out=False)


@pytest.mark.parametrize("source", [Digits(), Digits(validation=True), MixtureData(shape=(8, 8, 1)), _continuous()])
def test_genuine_test_images_are_no_copies(source) -> None:
    """Genuine test sets are not marked, though digits resemble each other."""
    train, test = (fingerprints_of(source.load(split)) for split in ("train", "test"))
    assert copies_of(test, train) == Copies(exact=0, near=0, held_out=True)
    assert len(set(groups_of(test, train))) == len(test)


def test_genuine_pairs_agree_in_few_bands() -> None:
    """No two genuine digits share 3 of 8 bands; near copies share at least 5."""
    train, test = (fingerprints_of(Digits().load(split))["bands"] for split in ("train", "test"))
    assert max(int((train == image).sum(1).max()) for image in test) == 2


@pytest.mark.parametrize("source", [MixtureData(), GaussianData(), MixtureData(levels=0)])
def test_small_images_have_no_thumbnail(source) -> None:
    """Images of 16 values, which are similar by chance, have hashes alone."""
    train, test = (fingerprints_of(source.load(split)) for split in ("train", "test"))
    assert copies_of(test, train) == Copies(exact=0, near=None, held_out=True)


def dots(seed: int, count: int) -> Images:
    """Black images with two white dots: any two differ in four values at most."""
    rng, pixels = np.random.default_rng(seed), np.zeros((count, 256), np.uint8)
    for image in pixels:
        image[rng.choice(256, 2, replace=False)] = 1
    return identified(pixels.reshape(count, 16, 16, 1), 2, name="dots", split="test")


def test_images_that_are_all_alike_are_not_marked() -> None:
    """Near copies do not count where training images are near copies of each other."""
    train, test = fingerprints_of(dots(0, 200)), fingerprints_of(dots(1, 100))
    copies = copies_of(test, train)
    assert copies.near is not None
    assert copies.near > 90
    assert copies.held_out is (copies.exact == 0)
    assert len(set(groups_of(test, train))) > 90, "two images of other dots are two images"


@pytest.mark.parametrize("exactly", [True, False])
def test_copies_within_a_test_set_are_one_group(exactly) -> None:
    """20 images, 15 times each, form 20 groups, also with a pixel changed in each."""
    test, order = Digits().load("test"), np.random.default_rng(0).permutation(COUNT)
    pixels = test.pixels[:20].repeat(15, 0)
    pixels = (pixels if exactly else one_value_changed(pixels, 17))[order]
    groups = groups_of(fingerprints_of(with_pixels(test, pixels)), fingerprints_of(Digits().load("train")))
    image = np.arange(20).repeat(15)[order]
    assert len(set(zip(groups, image, strict=True))) == len(set(groups)) == 20


def test_thumbnails_do_not_depend_on_how_many_images_are_read_at_once(colour, monkeypatch) -> None:
    """The thumbnail of an image does not depend on the block it is read in."""
    train, _ = colour
    expected = fingerprints_of(train)
    monkeypatch.setattr("vdmkit.data.sources._BLOCK_VALUES", 7 * train.pixels[0].size)
    assert (fingerprints_of(train) == expected).all()


def test_thumbnails_stay_the_same() -> None:
    """Thumbnails are stored in run folders, so their values never change."""
    levels = identified((np.arange(128).reshape(2, 8, 8, 1) % 17).astype(np.uint8), 17, name="a", split="test")
    continuous = identified(levels.pixels.astype(np.float32) / 3, 0, name="a", split="test")
    assert fingerprints_of(levels)["bands"].sum(1, dtype=np.uint64).tolist() == [18538264878, 21103327697]
    assert fingerprints_of(continuous)["bands"].sum(1, dtype=np.uint64).tolist() == [16738259449, 19219149739]
