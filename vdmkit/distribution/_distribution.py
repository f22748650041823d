# SPDX-License-Identifier: Apache-2.0
"""The interface of distributions of images with a known likelihood."""

import abc

import numpy as np
from jaxtyping import Float, Int, Real

from vdmkit.denoiser import Estimate
from vdmkit.errors import RecipeError
from vdmkit.noise import AbstractPath
from vdmkit.typing import Image, Scalar

_SDS = (1e-4, 1e2)  # narrower, the logs overflow float64; wider, the bins' masses lose more than 1e-12 to rounding
Rows = tuple[tuple[float, ...], ...]


class AbstractDistribution(abc.ABC):
    """A distribution of images of h w c values.

    Implementers are frozen dataclasses of tuples, because arrays in a model would be trained.
    """

    shape: tuple[int, int, int]
    levels: int
    weights: tuple[float, ...]

    @abc.abstractmethod
    def nats(self, images: Real[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
        """Returns -log P of each image in float64 nats, or minus its log density if levels = 0."""

    @abc.abstractmethod
    def sample(self, count: int, seed: int | tuple[int, ...]) -> Real[np.ndarray, "n h w c"]:
        """Returns independent images, by numpy's `default_rng(seed)`."""

    def components(self, count: int, seed: int | tuple[int, ...]) -> Int[np.ndarray, " n"]:
        """Returns the component of each image of `sample`, which must draw it first, by `draw_components`."""
        return draw_components(np.random.default_rng(seed), self.weights, count)

    @abc.abstractmethod
    def estimate(self, z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        """Returns the exact posterior estimate of the image given its latent z = alpha x + sigma eps."""

    def component(self, number: int) -> "AbstractDistribution | None":
        """Returns the distribution of the images of one component; None if that is not known."""
        return None


def draw_components(rng: np.random.Generator, weights: tuple[float, ...], count: int) -> Int[np.ndarray, " n"]:
    """Returns independent components."""
    return rng.choice(len(weights), count, p=weights)


def check_components(shape: tuple[int, int, int], weights: tuple[float, ...], means: Rows, sds: Rows) -> None:
    """Raises RecipeError if the numbers do not fit each other, or do not define a mixture of Gaussians."""
    pixels, low, high = int(np.prod(shape)), *_SDS
    problems = {
        f"shape = {list(shape)}: expected [height, width, channels]": min(shape) < 1,
        f"weights = {list(weights)}: expected positive numbers that sum to 1": not (
            weights and min(weights) > 0 and abs(sum(weights) - 1) < 1e-9
        ),
        f"expected as many means and sds as weights, of {pixels} pixels each": not (
            len(means) == len(sds) == len(weights) and all(len(row) == pixels for row in (*means, *sds))
        ),
        f"a mean is not finite, or a standard deviation not from {low:g} to {high:g}": not (
            all(abs(mean) < 10 for row in means for mean in row) and all(low <= sd <= high for row in sds for sd in row)
        ),
    }
    for problem, found in problems.items():
        if found:
            raise RecipeError(f"{problem}.")
