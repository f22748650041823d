# SPDX-License-Identifier: Apache-2.0
"""Images drawn from a known distribution: the likelihood that a recipe reports can be compared with the exact one."""

import numpy as np

from vdmkit.data._source import AbstractSource, Images, Split, identified
from vdmkit.distribution import LevelMixture
from vdmkit.errors import RecipeError
from vdmkit.registry import register


class _Drawn(AbstractSource):
    """Images of a LevelMixture: the two splits are independent, and longer ones begin with the shorter."""

    def __init__(self, name: str, distribution: LevelMixture, counts: dict[Split, int], seed: int) -> None:
        if min(counts.values()) < 1 or seed < 0:
            raise RecipeError(f"counts {counts} and seed {seed}: expected at least 1 image a split, and a seed >= 0.")
        self._name = name
        self._distribution = distribution
        self._counts = counts
        self._seed = seed

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._distribution.shape

    @property
    def levels(self) -> int:
        return self._distribution.levels

    @property
    def distribution(self) -> LevelMixture:
        return self._distribution

    def load(self, split: Split) -> Images:
        seed = (self._seed, ("train", "test").index(split))
        pixels = self._distribution.sample(self._counts[split], seed)
        return identified(pixels, self.levels, name=self._name, split=split)


@register("data", "gaussian")
class Gaussian(_Drawn):
    """Independent Gaussian pixels rounded to levels; their standard deviations fall geometrically over the pixels.

    Units are those of the data: levels lie in [-1, 1], the first of `sd_max` is the top left pixel.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (4, 4, 1),
        levels: int = 17,
        mean: float = 0.0,
        sd_max: float = 0.5,
        sd_min: float = 0.05,
        train_count: int = 1000,
        test_count: int = 300,
        seed: int = 0,
    ) -> None:
        if not 0 < sd_min <= sd_max:
            raise RecipeError(f"sd_min = {sd_min:g}, sd_max = {sd_max:g}: expected 0 < sd_min <= sd_max.")
        pixels = int(np.prod(shape))
        sds = tuple(np.geomspace(sd_max, sd_min, pixels).tolist())
        distribution = LevelMixture(shape, levels, (1.0,), ((float(mean),) * pixels,), (sds,))
        super().__init__("gaussian", distribution, {"train": train_count, "test": test_count}, seed)


@register("data", "mixture")
class Mixture(_Drawn):
    """Images of one of several components, each with its own mean and standard deviation on a chequerboard.

    Pixels of a component are independent; through the component they depend on each other. Units are those of
    the data: levels lie in [-1, 1].

    Args:
        weights: of the components, in proportion.
        means: of each component: at even cells as given, at odd ones with the other sign.
        sds: of each component.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (4, 4, 1),
        levels: int = 9,
        weights: tuple[float, ...] = (0.5, 0.3, 0.2),
        means: tuple[float, ...] = (0.3, -0.3, 0.0),
        sds: tuple[float, ...] = (0.3, 0.3, 0.6),
        train_count: int = 1000,
        test_count: int = 300,
        seed: int = 0,
    ) -> None:
        if not len(weights) == len(means) == len(sds):
            raise RecipeError(f"{len(weights)} weights, {len(means)} means, {len(sds)} sds: expected as many of each.")
        if not weights or min(weights) <= 0:
            raise RecipeError(f"weights = {list(weights)}: expected positive numbers.")
        signs = (-1.0) ** np.indices(shape).sum(0).ravel()
        distribution = LevelMixture(
            shape,
            levels,
            tuple(weight / sum(weights) for weight in weights),
            tuple(tuple((mean * signs).tolist()) for mean in means),
            tuple((float(sd),) * len(signs) for sd in sds),
        )
        super().__init__("mixture", distribution, {"train": train_count, "test": test_count}, seed)
