# SPDX-License-Identifier: Apache-2.0
"""Images drawn from a known distribution, so that a reported likelihood can be compared with the exact one."""

import abc
import math
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from vdmkit.arguments import AtOnce, Seed
from vdmkit.data._source import AbstractSource, Images, Split, identified
from vdmkit.errors import RecipeError
from vdmkit.registry import register
from vdmkit.toy_data import AbstractDistribution, Basis, GaussianMixture, LevelMixture

Levels = Annotated[int, Ge(0), Le(256)]
Side = Annotated[int, Ge(1), Le(128)]
Channels = Annotated[int, Ge(1), Le(4)]
Mean = Annotated[float, Gt(-10), Lt(10)]
Sd = Annotated[float, Ge(1e-4), Le(100)]
Weight = Annotated[float, Ge(1e-6), Le(1e6)]


class AbstractDrawn(AbstractSource):
    """Images drawn from a distribution. The two splits are independent; a longer split starts with a shorter one."""

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
        levels: Levels = 17,
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
    """Images from a mixture of components, each with its own standard deviation, and its mean on a chequerboard.

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
        levels: Levels = 9,
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
