# SPDX-License-Identifier: Apache-2.0
"""Checks of data sources and augmentations."""

import numpy as np
from jaxtyping import Real

from vdmkit.data import AbstractAugmentation, AbstractSource, Images, Split, blocks, hash_and_range, pixel_sha256
from vdmkit.testing._expect import expect


def check_data(source: AbstractSource) -> None:
    """Checks that both splits have the source's shape and levels, and their own identity, and load equally twice.

    Raises:
        ConformanceError: one of these does not hold.
        DataError: the data are missing or damaged.
    """
    for split in ("train", "test"):
        check_images(source, source.load(split))
    check_loads_again(source, source.load("test"))


def check_images(source: AbstractSource, images: Images) -> None:
    """Checks that loaded images agree with their source and their identity.

    Raises:
        ConformanceError: they do not agree.
    """
    check_identity(source, images)
    identity, where = images.identity, images.identity.split
    named, (found, *ends) = identity.sha256, hash_and_range(blocks(images.pixels))
    expect(found == named, f"identity of {where} names pixels {named[:12]}, and these are {found[:12]}")
    low, high = ends
    expect((low, high) == (identity.low, identity.high), f"identity of {where} does not go from {low:g} to {high:g}")


def check_identity(source: AbstractSource, images: Images) -> None:
    """Checks what can be seen without reading the pixels: shape, levels, number of images, and labels.

    Raises:
        ConformanceError: they do not agree with the source or the identity.
    """
    pixels, identity, where = images.pixels, images.identity, images.identity.split
    shape, levels = pixels.shape[1:], images.levels
    expect(shape == tuple(source.shape), f"images of {where} have shape {shape}, and the source says {source.shape}")
    expect(levels == source.levels, f"images of {where} have {levels} levels, and the source says {source.levels}")
    expect(identity.count == len(pixels), f"identity of {where} counts {identity.count} images of {len(pixels)}")
    if levels:
        expect(identity.high < levels, f"a value of {where} is {identity.high:g}, and there are {levels} levels")
    if images.labels is not None:
        low, high = int(np.min(images.labels)), int(np.max(images.labels))
        expect(low >= 0 and high < source.classes, f"labels of {where} go from {low} to {high} of {source.classes}")


def check_loads_again(source: AbstractSource, images: Images) -> None:
    """Checks that the split loads again with the same pixels and labels in the same order.

    Raises:
        ConformanceError: the pixels or labels differ.
    """
    split: Split = "train" if images.identity.split == "train" else "test"
    again = source.load(split)
    found = pixel_sha256(again.pixels)
    expect(found == images.identity.sha256, f"{split} loads with other pixels, or another order, a second time")
    same = again.labels is images.labels or np.array_equal(np.asarray(again.labels), np.asarray(images.labels))
    expect(bool(same), f"{split} loads with other labels a second time")


def check_augmentation(augmentation: AbstractAugmentation, pixels: Real[np.ndarray, "n h w c"], levels: int) -> None:
    """Checks that every move keeps shape, type and levels, acts on each image alone, and is deterministic.

    Raises:
        ConformanceError: one of these does not hold.
        DataError: images of this shape have no moves.
    """
    for number, move in enumerate(augmentation.moves(pixels.shape[1:])):
        before, moved = pixels.copy(), np.asarray(move(pixels))
        name = f"move {number}"
        expect(bool((pixels == before).all()), f"{name} changes the images that it is given")
        expect(moved.shape == pixels.shape, f"{name} makes images of shape {moved.shape[1:]} of {pixels.shape[1:]}")
        expect(moved.dtype == pixels.dtype, f"{name} makes {moved.dtype} of {pixels.dtype}")
        highest = float(moved.max())
        expect(not levels or highest < levels, f"{name} makes a value {highest:g} of images of {levels} levels")
        expect(bool((np.asarray(move(pixels)) == moved).all()), f"{name} moves the same images otherwise a second time")
        alone = np.concatenate([np.asarray(move(one[None])) for one in pixels])
        expect(bool((alone == moved).all()), f"{name} moves an image otherwise by itself than among others")
