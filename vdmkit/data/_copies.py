# SPDX-License-Identifier: Apache-2.0
"""Copies and near copies among images, found from 40 bytes kept of each.

Of every image a hash and a sketch are kept. For the sketch the values of an image are divided at random into 8 bands,
and each band gives one number of 32 bits. Two images are near copies if more than half of these numbers agree. A value
that changes spoils one band only, so up to three values may change by any amount. A band of levels enters by 4 sums of
its values with random signs, rounded to cells of 8% of the range times the square root of the band's size. Noise of
one level of 256 on every value therefore leaves most bands as they are (locality-sensitive hashing: Datar et al. 2004,
"Locality-sensitive hashing scheme based on p-stable distributions"). A band of continuous values enters as it is.

Genuine test images are far from training images. Of 297 and 1,500 digits, no pair agrees in more than 2 bands (the
nearest differ in 14 of 64 values, and by 6% of the range in root mean square); of the first 500 and 4,000 images of
CIFAR-10, in more than one (7.5% of the range). Noise of one level of 17 cannot be told from another digit. Other data
may vary less, so near copies count as evidence only where there are more of them than among the training images.
Images of fewer than 64 values have no sketch: they resemble each other by chance.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int, Real, Shaped, UInt32, UInt64

from vdmkit.data._rank_test import chance_of_as_many
from vdmkit.data._source import Images

_BANDS, _AGREEING, _SUMS, _CELL = 8, 5, 4, 0.08
_FEWEST_VALUES = 64
_CHUNK = 1 << 22  # values that are read at once
_CHANCE = 1e-6
_PRINT = np.dtype([("hash", "<u8"), ("bands", "<u4", (_BANDS,))])

Prints = Shaped[np.ndarray, " _"]  # records of `_PRINT`, or hashes alone
Bands = UInt32[np.ndarray, "_ 8"]


@dataclass(frozen=True)
class Copies:
    """How many test images are copies, or nearly copies, of training images; None: not known.

    `held_out` is false if there are copies, or more near copies than training images are of each other.
    """

    exact: int | None
    near: int | None
    held_out: bool | None


def image_hashes(pixels: Real[np.ndarray, "n h w c"]) -> UInt64[np.ndarray, " n"]:
    """64 bits of BLAKE2b of every image's bytes."""
    digests = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in pixels)
    return np.frombuffer(b"".join(digests), "<u8")


def prints_of(images: Images) -> Prints:
    """Returns the hash of every image, and its sketch, in one array of records; of small images the hashes alone."""
    pixels = images.pixels
    if pixels[0].size < _FEWEST_VALUES:
        return image_hashes(pixels)
    prints, rows = np.zeros(len(pixels), _PRINT), max(_CHUNK // pixels[0].size, 1)
    for start in range(0, len(pixels), rows):
        part = pixels[start : start + rows]
        prints["hash"][start : start + rows] = image_hashes(part)
        prints["bands"][start : start + rows] = _bands(part.reshape(len(part), -1), images.levels)
    return prints


def copies_of(test: Prints, trained_on: Prints | None) -> Copies:
    """Returns how many of the test images are copies or near copies of images that were trained on."""
    if trained_on is None:
        return Copies(None, None, None)
    equal = np.isin(_hashes(test), _hashes(trained_on))
    exact = int(equal.sum())
    if not _sketched(test):
        return Copies(exact, None, not exact)
    if not _sketched(trained_on):  # of an older run
        return Copies(exact, None, False if exact else None)
    others, ours = _distinct(trained_on), _distinct(test)
    near = _near(test["bands"], others["bands"]) & ~equal
    distinct = int(np.isin(ours["hash"], test["hash"][near]).sum())
    return Copies(exact, int(near.sum()), not (exact or _is_evidence(distinct, len(ours), others)))


def groups_of(test: Prints, trained_on: Prints | None) -> Int[np.ndarray, " n"]:
    """Returns a number for every test image, the same for copies of one image.

    Near copies count as copies where there are more of them than among the training images.
    """
    groups = np.unique(_hashes(test), return_inverse=True)[1].reshape(-1)
    if trained_on is None or not (_sketched(test) and _sketched(trained_on)):
        return groups
    ours = _distinct(test)
    near = int(_near_another(ours["bands"]).sum())
    return _joined(groups, test["bands"]) if _is_evidence(near, len(ours), _distinct(trained_on)) else groups


def _is_evidence(near: int, count: int, others: Prints) -> bool:
    """Whether `near` of `count` images have more near copies than the others have of each other."""
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
    """Draws by `RandomState`, whose numbers stay the same in every version of numpy: sketches are kept for years."""
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
    """A hash of each choice of 5 bands: two images agree in 5 or more exactly if one of these is equal."""
    mixed = bands * _odd(np.random.RandomState(1), _BANDS)
    return (mixed[:, list(some)].sum(1) for some in combinations(range(_BANDS), _AGREEING))


def _near(bands: Bands, others: Bands) -> Bool[np.ndarray, " n"]:
    """Which images are nearly one of the others, or equal."""
    pairs = zip(_keys(bands), _keys(others), strict=True)
    return np.any([np.isin(ours, theirs) for ours, theirs in pairs], axis=0)


def _near_another(bands: Bands) -> Bool[np.ndarray, " n"]:
    """Which images are nearly another one of the same set."""
    found = np.zeros(len(bands), bool)
    for keys in _keys(bands):
        _, place, count = np.unique(keys, return_inverse=True, return_counts=True)
        found |= count[place.reshape(-1)] > 1
    return found


def _joined(groups: Int[np.ndarray, " n"], bands: Bands) -> Int[np.ndarray, " n"]:
    """Groups joined with those of near copies, and of their near copies."""
    places = [np.unique(keys, return_inverse=True)[1].reshape(-1) for keys in (groups, *_keys(bands))]
    while True:
        before = groups
        for place in places:
            least = np.full(place.max() + 1, len(groups))
            np.minimum.at(least, place, groups)
            groups = least[place]
        if (groups == before).all():
            return groups
