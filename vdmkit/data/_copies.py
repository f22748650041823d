# SPDX-License-Identifier: Apache-2.0
"""Finds copies and near copies among images, from 40 bytes stored for each image.

A hash and a sketch of every image are stored. For the sketch the values of an image are divided at random into 8
bands, and each band gives one number of 32 bits. Two images are near copies if more than half of these numbers agree.
A changed value affects one band only, so up to three values may change by any amount. A band of levels is hashed by 4
sums of its values with random signs, rounded to cells of 8% of the range times the square root of the band's size, so
that noise of one level of 256 on every value leaves most bands unchanged (locality-sensitive hashing: Datar et al.
2004, "Locality-sensitive hashing scheme based on p-stable distributions"). A band of continuous values is hashed as
it is.

Genuine test images are far from training images. Among 297 and 1,500 digits, no pair agrees in more than 2 bands (the
nearest differ in 14 of 64 values, and by 6% of the range in root mean square); among the first 500 and 4,000 images of
CIFAR-10, in more than one (7.5% of the range). Noise of one level of 17 cannot be distinguished from another digit.
Other data may vary less, so near copies count as evidence only if they are more frequent than among the training
images.
Images of fewer than 64 values have no sketch, because they resemble each other by chance.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int, Real, Shaped, UInt32, UInt64

from vdmkit.data._pixels import Pixels, blocks
from vdmkit.data._rank_test import chance_of_as_many
from vdmkit.data._source import Images

_BANDS, _AGREEING, _SUMS, _CELL = 8, 5, 4, 0.08
_FEWEST_VALUES = 64
_CHANCE = 1e-6
_PRINT = np.dtype([("hash", "<u8"), ("bands", "<u4", (_BANDS,))])

Prints = Shaped[np.ndarray, " _"]  # records of `_PRINT`, or hashes alone
Bands = UInt32[np.ndarray, "_ 8"]


@dataclass(frozen=True)
class Copies:
    """Numbers of test images that are copies or near copies of training images; None if unknown.

    `held_out` is false if there are copies, or more near copies than training images are of each other.
    """

    exact: int | None
    near: int | None
    held_out: bool | None


def image_hashes(pixels: Pixels) -> UInt64[np.ndarray, " n"]:
    """Returns 64 bits of BLAKE2b of every image's bytes."""
    images = (np.ascontiguousarray(image) for block in blocks(pixels) for image in block)
    digests = (hashlib.blake2b(image.data, digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), "<u8")


def prints_of(images: Images) -> Prints:
    """Returns an array of records with every image's hash and sketch; for small images, the hashes alone."""
    if images.prints is not None:
        return images.prints
    return np.concatenate([prints_of_block(block, images.levels) for block in blocks(images.pixels)])


def hashes_of(images: Images) -> UInt64[np.ndarray, " n"]:
    """Returns `image_hashes` of the images, without reading them if their prints are known."""
    return image_hashes(images.pixels) if images.prints is None else _hashes(images.prints)


def prints_of_block(block: Real[np.ndarray, "n h w c"], levels: int) -> Prints:
    """Returns the prints of some images."""
    if block[0].size < _FEWEST_VALUES:
        return image_hashes(block)
    prints = np.zeros(len(block), _PRINT)
    prints["hash"], prints["bands"] = image_hashes(block), _bands(block.reshape(len(block), -1), levels)
    return prints


def may_be_prints(found: np.ndarray, count: int, values: int, *, older: bool = False) -> bool:
    """Returns whether an array may be the prints of `count` images of so many values; an older run had hashes alone."""
    hashes_alone = values < _FEWEST_VALUES or (older and found.dtype != _PRINT)
    return found.shape == (count,) and found.dtype == (np.dtype("<u8") if hashes_alone else _PRINT)


def copies_of(test: Prints, trained_on: Prints | None) -> Copies:
    """Returns how many test images are copies or near copies of training images."""
    if trained_on is None:
        return Copies(None, None, None)
    equal = np.isin(_hashes(test), _hashes(trained_on))
    exact = int(equal.sum())
    if not _sketched(test):
        return Copies(exact, None, not exact)
    if not _sketched(trained_on):  # an older run stored hashes alone
        return Copies(exact, None, False if exact else None)
    others, ours = _distinct(trained_on), _distinct(test)
    near = _near(test["bands"], others["bands"]) & ~equal
    distinct = int(np.isin(ours["hash"], test["hash"][near]).sum())
    return Copies(exact, int(near.sum()), not (exact or _is_evidence(distinct, len(ours), others)))


def groups_of(test: Prints, trained_on: Prints | None) -> Int[np.ndarray, " n"]:
    """Returns a group number for every test image; copies of one image share a group.

    Near copies count as copies if they are more frequent than among the training images.
    """
    groups = np.unique(_hashes(test), return_inverse=True)[1].reshape(-1)
    if trained_on is None or not (_sketched(test) and _sketched(trained_on)):
        return groups
    ours = _distinct(test)
    near = int(_near_another(ours["bands"]).sum())
    return _joined(groups, test["bands"]) if _is_evidence(near, len(ours), _distinct(trained_on)) else groups


def _is_evidence(near: int, count: int, others: Prints) -> bool:
    """Returns whether near copies, `near` among `count` images, are more frequent than among the other images."""
    if not near:
        return False
    usual = int(_near_another(others["bands"]).sum())
    return not usual or chance_of_as_many(near, count, usual, len(others)) < _CHANCE


def _hashes(prints: Prints) -> UInt64[np.ndarray, " n"]:
    return prints["hash"] if _sketched(prints) else prints


def _sketched(prints: Prints) -> bool:
    return prints.dtype == _PRINT


def _distinct(prints: Prints) -> Prints:
    return prints[np.unique(prints["hash"], return_index=True)[1]]


def _bands(rows: Real[np.ndarray, "n d"], levels: int) -> Bands:
    """Computes sketches. They are stored for years, hence `RandomState`, whose numbers do not change with numpy."""
    draw = np.random.RandomState(0)
    band = draw.permutation(rows.shape[1]) % _BANDS
    if not levels:
        return _mixed_bits(rows, band, draw)
    width = _CELL * (levels - 1) * np.sqrt(rows.shape[1] / _BANDS)
    weights = np.zeros((rows.shape[1], _BANDS, _SUMS), np.float32)
    weights[np.arange(len(band)), band] = draw.choice([-1, 1], (len(band), _SUMS))
    sums = rows.astype(np.float32) @ weights.reshape(len(band), -1)  # whole numbers, so exact
    cells = np.floor(sums / width + draw.random_sample(_BANDS * _SUMS)).astype(np.int64).astype(np.uint64)
    return _high((cells.reshape(-1, _BANDS, _SUMS) * _odd(draw, _SUMS)).sum(2))


def _mixed_bits(rows: Real[np.ndarray, "n d"], band: Int[np.ndarray, " d"], draw: np.random.RandomState) -> Bands:
    bits, factors = np.ascontiguousarray(rows, np.float32).view(np.uint32), _odd(draw, rows.shape[1])
    return _high(np.stack([(bits[:, band == k] * factors[band == k]).sum(1) for k in range(_BANDS)], 1))


def _odd(draw: np.random.RandomState, count: int) -> UInt64[np.ndarray, " k"]:
    return draw.randint(0, 1 << 63, count, np.uint64) * np.uint64(2) + np.uint64(1)


def _high(keys: UInt64[np.ndarray, "n 8"]) -> Bands:
    return (keys >> np.uint64(32)).astype(np.uint32)  # the low bits of such products are hardly mixed


def _keys(bands: Bands) -> Iterator[UInt64[np.ndarray, " n"]]:
    """Yields a hash for each choice of 5 bands; two images agree in at least 5 bands iff one of the hashes is equal."""
    mixed = bands * _odd(np.random.RandomState(1), _BANDS)
    return (mixed[:, list(some)].sum(1) for some in combinations(range(_BANDS), _AGREEING))


def _near(bands: Bands, others: Bands) -> Bool[np.ndarray, " n"]:
    """Returns which images are copies or near copies of one of the others."""
    pairs = zip(_keys(bands), _keys(others), strict=True)
    return np.any([np.isin(ours, theirs) for ours, theirs in pairs], axis=0)


def _near_another(bands: Bands) -> Bool[np.ndarray, " n"]:
    """Returns which images are near copies of another image of the same set."""
    found = np.zeros(len(bands), bool)
    for keys in _keys(bands):
        _, place, count = np.unique(keys, return_inverse=True, return_counts=True)
        found |= count[place.reshape(-1)] > 1
    return found


def _joined(groups: Int[np.ndarray, " n"], bands: Bands) -> Int[np.ndarray, " n"]:
    """Joins the groups of images that are connected by near copies."""
    places = [np.unique(keys, return_inverse=True)[1].reshape(-1) for keys in (groups, *_keys(bands))]
    while True:
        before = groups
        for place in places:
            least = np.full(place.max() + 1, len(groups))
            np.minimum.at(least, place, groups)
            groups = least[place]
        if (groups == before).all():
            return groups
