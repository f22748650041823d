# SPDX-License-Identifier: Apache-2.0
"""Images drawn from a known distribution: the likelihood that a recipe reports can be compared with the exact one."""

import abc
import math
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from vdmkit.data._source import AbstractSource, Images, Split, identified
from vdmkit.distribution import AbstractDistribution, Basis, GaussianMixture, LevelMixture
from vdmkit.errors import RecipeError
from vdmkit.limits import AtOnce, Seed
from vdmkit.registry import register

Levels = Annotated[int, Ge(0), Le(256)]
Side = Annotated[int, Ge(1), Le(128)]
Channels = Annotated[int, Ge(1), Le(4)]
Mean = Annotated[float, Gt(-10), Lt(10)]
Sd = Annotated[float, Ge(1e-4), Le(100)]
Weight = Annotated[float, Ge(1e-6), Le(1e6)]


class AbstractDrawn(AbstractSource):
    """Images of a distribution: the two splits are independent, and longer ones begin with the shorter."""

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
        return identified(pixels, self.levels, name=self.name, split=split)


@register("data", "gaussian")
class GaussianData(AbstractDrawn):
    """Gaussian images with a given spectrum of the covariance: continuous, or independent pixels rounded to levels.

    Args:
        shape: (height, width, channels).
        levels: Number of values a pixel can take; 0 is continuous. Levels lie in [-1, 1], in units of the data.
        mean: Of every pixel.
        sds: Square roots of the covariance's eigenvalues, one for each pixel and channel, the top left first.
        sd_max: Without `sds`, the first of them;
        sd_min: the last; they fall geometrically.
        basis: The covariance's eigenvectors: single "pixels", or "cosine" waves, which continuous data can have.
        train_count: Number of images to train on.
        test_count: Number of images to test on.
        seed: Of the images.
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
    """Images of one of several components, each with its own mean and standard deviation on a chequerboard.

    Pixels of a component are independent; through the component they depend on each other. Units are those of
    the data: levels lie in [-1, 1].

    Args:
        shape: (height, width, channels).
        levels: Number of values a pixel can take; 0 is continuous.
        weights: Of the components, in proportion.
        means: Of each component: at even cells as given, at odd ones with the other sign.
        sds: Of each component.
        train_count: Number of images to train on.
        test_count: Number of images to test on.
        seed: Of the images.
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
    """The same pixels rounded to levels, or as they are where `levels` is 0."""
    if levels and continuous.basis != "pixels":
        raise RecipeError(
            f'levels = {levels} with basis = "{continuous.basis}": the likelihood of levels is known for independent '
            'pixels only. Set levels = 0, or basis = "pixels".'
        )
    parts = (continuous.weights, continuous.means, continuous.sds)
    return LevelMixture(continuous.shape, levels, *parts) if levels else continuous
