# SPDX-License-Identifier: Apache-2.0
"""Identity of images: hashes, copies and near copies, statistics, and whether a test set suits a model.

A hash and a thumbnail of every image are stored. For the thumbnail the values of an image are divided at random into 8
bands, and each band gives one number of 32 bits. Two images are near copies if more than half of these numbers agree.
A changed value affects one band only, so up to three values may change by any amount. A band of levels is hashed by 4
sums of its values with random signs, rounded to cells of 8% of the range times the square root of the band's size, so
that noise of one level of 256 on every value leaves most bands unchanged (locality-sensitive hashing: Datar et al.
2004, "Locality-sensitive hashing scheme based on p-stable distributions"). A band of continuous values is hashed as
it is.

Genuine test images are far from training images. Among 297 and 1,500 digits, no pair agrees in more than 2 bands (the
nearest differ in 14 of 64 values, and by 6% of the range in root mean square); among the first 500 and 4,000 images of
CIFAR-10, no pair agrees in more than one (7.5% of the range). With 17 levels, noise of one level cannot be
distinguished from a different digit. Other data may vary less, so near copies count as evidence only if they are more
frequent than among the training images. Images of fewer than 64 values have no thumbnail, because they resemble each
other by chance.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import scipy
from jax.core import Tracer
from jaxtyping import Array, Bool, Float32, Int, Int32, Real, Shaped, UInt32, UInt64

from vdmkit.data.sources import AbstractPixels, Images, Pixels, blocks, hash_and_range, select
from vdmkit.errors import DataError
from vdmkit.model import DiffusionModel
from vdmkit.progress import Advance

_FALSE_ALARM = 1e-6  # probability that a test here reports a difference between sets of the same distribution

# Thumbnails.
_BANDS, _AGREEING, _SUMS, _CELL = 8, 5, 4, 0.08
_FEWEST_VALUES = 64
_FINGERPRINT = np.dtype([("hash", "<u8"), ("bands", "<u4", (_BANDS,))])

# Statistics.
_NAMES = ("mean level", "spread of levels", "step between neighbouring pixels", "first channel less the last")
_SAMPLE = 2000  # images sampled from a set
_DISTANCE, _SHIFT = 0.75, 0.25

_RELEASE = re.compile(r"imagenet\d+_(old|new)")
_NARROW = 8

Fingerprints = Shaped[np.ndarray, " _"]  # records of `_FINGERPRINT`, or hashes alone
Bands = UInt32[np.ndarray, "_ 8"]
Statistics = Float32[np.ndarray, "_ 4"]


@dataclass(frozen=True)
class TrainedOn:
    """Identity, fingerprints and statistics of the training images; None where unknown."""

    identity: Mapping[str, Any] | None = None
    fingerprints: Fingerprints | None = None
    statistics: Statistics | None = None


def trained_on(train: Images) -> TrainedOn:
    """Returns the record of a training set, within four seconds for the 50,000 images of CIFAR-10."""
    return TrainedOn(asdict(train.identity), fingerprints_of(train), statistics_of(train.pixels))


def reasons_against(known: TrainedOn, test: Images) -> tuple[list[str], list[str]]:
    """Returns reasons why a likelihood of `test` is not valid for the model, and remarks to print with it.

    Args:
        known: Record of the model's training images.
        test: The images to measure.
    """
    trained, statistics = known.identity, known.statistics
    if trained is None:
        return [], []
    reasons = [*_of_release(trained["name"], test.identity.name), *_of_scale(trained["low"], trained["high"], test)]
    # The statistical test assumes independent images, so copies of an image count once.
    distinct = np.sort(np.unique(hashes_of(test), return_index=True)[1])
    found = [] if statistics is None else differences(statistics, statistics_of(select(test.pixels, distinct)))
    large = [f"the test images are unlike the training images: {one}." for one in found[:1] if one.large]
    small = [f"The test images differ a little from the training images: {one}." for one in found[:1] if not one.large]
    return [*reasons, *large], small


def check_comparable(known: TrainedOn, test: Images) -> tuple[str, ...]:
    """Raises DataError with the reasons of `reasons_against`; returns the remarks to print with a likelihood."""
    reasons, remarks = reasons_against(known, test)
    if reasons:
        raise DataError(f"{test.identity.name}: {' '.join(reasons)}")
    return tuple(remarks)


def _of_release(trained: str, tested: str) -> list[str]:
    """Compares the releases of ImageNet, whose downsampling changes the likelihood by a quarter of a bit/dim."""
    found = [_RELEASE.fullmatch(name) for name in (trained, tested)]
    if None in found or len({match[1] for match in found if match}) == 1:
        return []
    return [f"the model was trained on {trained}, and these images are {tested}: they are not comparable."]


def _of_scale(low: float, high: float, test: Images) -> list[str]:
    """Compares the ranges of values; refuses one 8 times narrower, or exceeding the other by half its width."""
    found, span = test.identity, high - low
    if low - span / 2 <= found.low and found.high <= high + span / 2 and found.high - found.low >= span / _NARROW:
        return []
    return [
        f"values of the test images go from {found.low:g} to {found.high:g}, and those that the model was trained on "
        f"from {low:g} to {high:g}: they are of another scale."
    ]


def check_pixels(model: DiffusionModel, pixels: Real[Array | np.ndarray | AbstractPixels, "n h w c"]) -> None:
    """Raises DataError if the images differ from the model's in shape, type or (outside `jax.jit`) range."""
    levels, dtype = model.observation.levels, np.uint8 if model.observation.levels else np.float32
    if isinstance(pixels.dtype, np.dtype) and pixels.dtype == object:
        raise DataError('images: expected an array of shape (n, h, w, c), such as `run.data("test").pixels`.')
    if pixels.ndim != 4 or pixels.shape[1:] != model.shape:
        raise DataError(f"images of shape {pixels.shape}: expected (n, {', '.join(map(str, model.shape))}).")
    if pixels.dtype != dtype:
        advice = f" Give the levels 0..{levels - 1} as integers: images.astype(numpy.uint8)." if levels else ""
        raise DataError(f"images of {pixels.dtype}: expected {dtype.__name__}, for {levels or 'no'} levels.{advice}")
    if isinstance(pixels, Tracer):
        return
    parts = blocks(pixels) if isinstance(pixels, AbstractPixels) else [pixels]
    if 0 < levels < 256 and len(pixels) and (highest := max(int(part.max()) for part in parts)) >= levels:
        raise DataError(f"a pixel is {highest}: expected 0..{levels - 1}.")


def check_fits(model: DiffusionModel, test: Images) -> None:
    """Raises DataError if the images differ from the model's in shape or number of levels."""
    check_like(test, model.shape, model.observation.levels)


def check_like(images: Images, shape: tuple[int, ...], levels: int) -> None:
    """Raises DataError if the images differ in shape or number of levels from those that a model was made for."""
    found, expected = (*images.pixels.shape[1:], images.levels), (*shape, levels)
    if found != expected:
        raise DataError(
            f"{images.identity.name}: images of (height, width, channels, levels) {found}; the model was trained on "
            f"{expected}. The model has no likelihood for them."
        )


@dataclass(frozen=True)
class Copies:
    """Numbers of test images that are copies or near copies of training images; None if unknown.

    `held_out` is false if there are copies, or if near copies are more frequent than among the training images.
    """

    exact: int | None
    near: int | None
    held_out: bool | None


def image_hashes(pixels: Pixels) -> UInt64[np.ndarray, " n"]:
    """Returns 64 bits of BLAKE2b of every image's bytes."""
    images = (np.ascontiguousarray(image) for block in blocks(pixels) for image in block)
    digests = (hashlib.blake2b(image.data, digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), "<u8")


def fingerprints_of(images: Images) -> Fingerprints:
    """Returns an array of records with every image's hash and thumbnail; for small images, the hashes alone."""
    if images.fingerprints is not None:
        return images.fingerprints
    return np.concatenate([_fingerprints_of_block(block, images.levels) for block in blocks(images.pixels)])


def hashes_of(images: Images) -> UInt64[np.ndarray, " n"]:
    """Returns `image_hashes` of the images, without reading them if their fingerprints are known."""
    return image_hashes(images.pixels) if images.fingerprints is None else _hashes(images.fingerprints)


def _fingerprints_of_block(block: Real[np.ndarray, "n h w c"], levels: int) -> Fingerprints:
    """Returns the fingerprints of some images."""
    if block[0].size < _FEWEST_VALUES:
        return image_hashes(block)
    fingerprints = np.zeros(len(block), _FINGERPRINT)
    fingerprints["hash"], fingerprints["bands"] = image_hashes(block), _bands(block.reshape(len(block), -1), levels)
    return fingerprints


def may_be_fingerprints(found: np.ndarray, count: int, values: int) -> bool:
    """Returns whether an array has the shape and type of the fingerprints of `count` images of `values` values."""
    return found.shape == (count,) and found.dtype == (np.dtype("<u8") if values < _FEWEST_VALUES else _FINGERPRINT)


def copies_of(test: Fingerprints, trained_on: Fingerprints | None) -> Copies:
    """Returns how many test images are copies or near copies of training images."""
    if trained_on is None:
        return Copies(None, None, None)
    equal = np.isin(_hashes(test), _hashes(trained_on))
    exact = int(equal.sum())
    if not _have_thumbnails(test):
        return Copies(exact, None, not exact)
    others, ours = _distinct(trained_on), _distinct(test)
    near = _near(test["bands"], others["bands"]) & ~equal
    distinct = int(np.isin(ours["hash"], test["hash"][near]).sum())
    return Copies(exact, int(near.sum()), not (exact or _is_evidence(distinct, len(ours), others)))


def groups_of(test: Fingerprints, trained_on: Fingerprints | None) -> Int[np.ndarray, " n"]:
    """Returns a group number for every test image; copies of one image share a group.

    Near copies count as copies if they are more frequent than among the training images.
    """
    groups = np.unique(_hashes(test), return_inverse=True)[1].reshape(-1)
    if trained_on is None or not _have_thumbnails(test):
        return groups
    ours = _distinct(test)
    near = int(_near_another(ours["bands"]).sum())
    return _joined(groups, test["bands"]) if _is_evidence(near, len(ours), _distinct(trained_on)) else groups


def _is_evidence(near: int, count: int, others: Fingerprints) -> bool:
    """Returns whether near copies, `near` among `count` images, are more frequent than among the other images."""
    if not near:
        return False
    usual = int(_near_another(others["bands"]).sum())
    return not usual or chance_of_as_many(near, count, usual, len(others)) < _FALSE_ALARM


def _hashes(fingerprints: Fingerprints) -> UInt64[np.ndarray, " n"]:
    return fingerprints["hash"] if _have_thumbnails(fingerprints) else fingerprints


def _have_thumbnails(fingerprints: Fingerprints) -> bool:
    return fingerprints.dtype == _FINGERPRINT


def _distinct(fingerprints: Fingerprints) -> Fingerprints:
    return fingerprints[np.unique(fingerprints["hash"], return_index=True)[1]]


def _bands(rows: Real[np.ndarray, "n d"], levels: int) -> Bands:
    """Computes thumbnails. They are stored, hence `RandomState`, whose stream is the same in all numpy versions."""
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
    return (keys >> np.uint64(32)).astype(np.uint32)  # the low bits of products are poorly mixed


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


def on_copies(copies: Copies, groups: Int[np.ndarray, " m"], in_test_set: int) -> list[str]:
    """Describes near copies of training images, and copies among the m measured images, in sentences."""
    remarks, distinct = [], len(np.unique(groups))
    if copies.near:
        count = f"{copies.near:,} of the {in_test_set:,} test images are near copies of training images"
        usual = "no more than training images are of each other"
        remarks.append(f"{count}: not a test likelihood." if not copies.held_out else f"{count}, {usual}.")
    if distinct < len(groups):
        count = f"Only {distinct:,} of the {len(groups):,} images are distinct"
        remarks.append(f"{count}: for the error of the test set, copies count as one image.")
    return remarks


@dataclass(frozen=True)
class Scan:
    """SHA-256, smallest and largest value of some images, and the fingerprint of each."""

    sha256: str
    low: float
    high: float
    fingerprints: Fingerprints


def scan(parts: Iterable[np.ndarray], levels: int, advance: Advance) -> Scan:
    """Reads images once, in blocks, and collects what later runs need, so that they need not read them again."""
    fingerprints: list[Fingerprints] = []

    def read() -> Iterator[np.ndarray]:
        for block in parts:
            yield block
            fingerprints.append(_fingerprints_of_block(block, levels))
            advance(len(block))

    return Scan(*hash_and_range(read()), np.concatenate(fingerprints))


@dataclass(frozen=True)
class Difference:
    """One statistic of an image that differs between two sets by more than chance.

    `distance` is the Kolmogorov-Smirnov distance. A difference is `large` if the distance is at least 0.75 and the
    medians are at least a quarter of the range of levels apart.
    """

    name: str
    distance: float
    median: float
    other_median: float
    large: bool

    def __str__(self) -> str:
        same = f"around the same median, {self.median:.4g}"
        medians = f"with median {self.other_median:.4g}, that of the training images {self.median:.4g}"
        return (
            f"the {self.name} has another distribution, {same if self.median == self.other_median else medians} "
            f"(Kolmogorov-Smirnov distance {self.distance:.2f}; one this large by chance: less than {_FALSE_ALARM:g})"
        )


def statistics_of(pixels: Pixels) -> Statistics:
    """Returns four statistics per image, for all images or for 2,000 drawn at random.

    They are the mean and the standard deviation of the values, the mean absolute difference of neighbours in a row,
    and the mean of the first channel minus that of the last: scale, contrast, sharpness and colour.
    """
    rows = np.sort(np.random.RandomState(0).permutation(len(pixels))[:_SAMPLE])
    return np.stack([_of_image(pixels[row].astype(np.float64)) for row in rows]).astype(np.float32)


def may_be_statistics(found: np.ndarray, count: int) -> bool:
    """Returns whether an array may be the statistics of `count` images."""
    shape = (min(count, _SAMPLE), len(_NAMES))
    return found.dtype == np.float32 and found.shape == shape and bool(np.isfinite(found).all())


def _of_image(image: Real[np.ndarray, "h w c"]) -> list[float]:
    step = np.abs(np.diff(image, axis=1)).mean() if image.shape[1] > 1 else 0.0
    channels = image.mean((0, 1))
    return [image.mean(), image.std(), step, channels[0] - channels[-1]]


def differences(statistics: Statistics, others: Statistics) -> list[Difference]:
    """Returns the statistics in which `others` differ from the first, large differences first.

    For sets of the same distribution it returns any with probability at most 1e-6: each of the four statistics is
    tested at a quarter of that (Bonferroni). Sets of two images never differ, because no order of so few values is that
    rare.
    """
    spread = np.sqrt((statistics[:, 1] ** 2).mean() + statistics[:, 0].var())
    found = []
    for name, ours, theirs in zip(_NAMES, statistics.T, others.T, strict=True):
        distance, chance = apart(ours, theirs)
        if chance < _FALSE_ALARM / len(_NAMES):
            medians = float(np.median(ours)), float(np.median(theirs))
            large = distance >= _DISTANCE and abs(medians[0] - medians[1]) >= _SHIFT * spread
            found.append(Difference(name, distance, *medians, bool(large)))
    return sorted(found, key=lambda one: (one.large, one.distance), reverse=True)


def level_counts(images: Images) -> Int32[np.ndarray, "h w c V"]:
    """Returns how often each level occurs at each pixel and channel; the sum over levels is the number of images."""
    shape, levels = images.pixels.shape[1:], images.levels
    size = int(np.prod(shape))
    counts = np.zeros(size * levels, np.int64)
    first_bin = np.arange(size) * levels
    for block in blocks(images.pixels):
        counts += np.bincount((first_bin + block.reshape(-1, size)).ravel(), minlength=size * levels)
    return counts.reshape(*shape, levels).astype(np.int32)


def apart(first: Real[np.ndarray, " n"], second: Real[np.ndarray, " m"]) -> tuple[float, float]:
    """Returns the Kolmogorov-Smirnov distance of two samples, and its p-value.

    The p-value is exact for samples of one continuous distribution, by counting the orders of their values (Hodges
    1958, "The significance probability of the Smirnov two-sample test"). With ties it is an upper bound.
    """
    n, m = len(first), len(second)
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(sample), values, side="right") for sample in (first, second)]
    gap = int(np.abs(m * below[0] - n * below[1]).max())
    return gap / (n * m), 1 - _chance_of_less(gap, n, m)


def _chance_of_less(gap: int, n: int, m: int) -> float:
    """Returns the share of lattice paths from (0, 0) to (n, m) with |m i - n j| < gap at every point (i, j)."""
    n, m = min(n, m), max(n, m)  # paths mirrored at the diagonal; each turn of the loop takes a row of m + 1 points
    j = np.arange(m + 1)
    paths, scale = (n * j < gap).astype(float).cumprod(), 0.0
    for i in range(1, n + 1):
        # A point is reached from the left or from below; its row is rescaled, since the counts overflow.
        paths = np.where(np.abs(m * i - n * j) < gap, paths, 0.0).cumsum() * (np.abs(m * i - n * j) < gap)
        if not (largest := paths.max()):
            return 0.0
        paths, scale = paths / largest, scale + np.log(largest)
    if not paths[m]:
        return 0.0
    all_paths = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return float(np.exp(np.log(paths[m]) + scale - all_paths))


def chance_of_as_many(marked: int, count: int, marked_others: int, others: int) -> float:
    """Returns the one-sided p-value of Fisher's exact test, `marked` in `count` against `marked_others` in `others`.

    It is the chance that `count` images drawn at random from all images include at least `marked` of the marked ones.
    """
    all_marked, unmarked = marked + marked_others, count + others - marked - marked_others
    k = np.arange(marked, min(count, all_marked) + 1)
    k = k[count - k <= unmarked]
    all_choices = _log_choose(count + others, np.array([count]))
    logs = _log_choose(all_marked, k) + _log_choose(unmarked, count - k) - all_choices
    return float(min(np.exp(scipy.special.logsumexp(logs)), 1.0))


def _log_choose(n: int, k: Real[np.ndarray, " j"]) -> Real[np.ndarray, " j"]:
    return scipy.special.gammaln(n + 1) - scipy.special.gammaln(k + 1) - scipy.special.gammaln(n - k + 1)
