# SPDX-License-Identifier: Apache-2.0
"""Distributions of images with known likelihoods, and their exact denoisers.

`GaussianMixture` is a distribution of continuous images, whose covariances share their eigenvectors:

    p(x) = sum_c w_c N(x; m_c, B diag(s_c^2) B^T)

B is the identity, or the cosine transform of each channel, which makes the pixels correlated.

`LevelMixture` is a distribution of discrete images, with independent, rounded Gaussian pixels in each component:

    P(image) = sum_c w_c prod_j P_cj(level of pixel j)
    P_cj(k)  = Phi((e_{k+1} - m_cj) / s_cj) - Phi((e_k - m_cj) / s_cj)

e_k = 2k / V - 1 are the edges of V equal bins of [-1, 1], with the outer two edges moved to infinity.

Predictions `exact` and `exact_given_label` return the exact posterior of data from these distributions.
"""

import abc
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int, Real, UInt8

from vdmkit.errors import RecipeError
from vdmkit.predictions import AbstractPrediction, Estimate, estimate_from_logits, level_values
from vdmkit.process import AbstractPath, Image
from vdmkit.registry import register
from vdmkit.schedules import Scalar

__all__ = ["AbstractDistribution", "Exact", "ExactGivenLabel", "GaussianMixture", "LevelMixture"]

_SDS = (1e-4, 1e2)  # below this the logs overflow float64; above it rounding changes the bin masses by over 1e-12
Rows = tuple[tuple[float, ...], ...]


class AbstractDistribution(abc.ABC):
    """A distribution of images of shape (h, w, c).

    Subclasses are frozen dataclasses of tuples, because arrays in a model would be trained.
    """

    shape: tuple[int, int, int]
    levels: int
    weights: tuple[float, ...]

    @abc.abstractmethod
    def nats(self, images: Real[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
        """Returns -log P of each image in nats, in float64; minus the log density if levels = 0."""

    @abc.abstractmethod
    def sample(self, count: int, seed: int | tuple[int, ...]) -> Real[np.ndarray, "n h w c"]:
        """Draws independent images with numpy's `default_rng(seed)`."""

    def components(self, count: int, seed: int | tuple[int, ...]) -> Int[np.ndarray, " n"]:
        """Returns the component of each image of `sample`.

        `sample` must call `draw_components` before it draws anything else from the generator.
        """
        return draw_components(np.random.default_rng(seed), self.weights, count)

    @abc.abstractmethod
    def estimate(self, z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        """Returns the exact posterior estimate of the image given its latent z = alpha x + sigma eps."""

    def component(self, number: int) -> "AbstractDistribution | None":
        """Returns the distribution of one component, or None if it is not known."""
        return None


def draw_components(rng: np.random.Generator, weights: tuple[float, ...], count: int) -> Int[np.ndarray, " n"]:
    return rng.choice(len(weights), count, p=weights)


def check_components(shape: tuple[int, int, int], weights: tuple[float, ...], means: Rows, sds: Rows) -> None:
    """Raises RecipeError if the numbers are inconsistent or do not define a mixture of Gaussians."""
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


Basis = Literal["pixels", "cosine"]
Values = TypeVar("Values", Float[Array, "*n h w c"], Float[np.ndarray, "*n h w c"])
_IMAGE = (-3, -2)


@dataclass(frozen=True)
class GaussianMixture(AbstractDistribution):
    """A mixture of C Gaussians over continuous values.

    Args:
        shape: (h, w, c) of an image.
        weights: C positive numbers that sum to 1.
        means: The h w c pixels of each component's mean, in C order.
        sds: The square roots of the eigenvalues of each component's covariance, in the order of the basis.
        basis: The eigenvectors, either single pixels or cosines.

    Raises:
        RecipeError: the numbers are inconsistent or do not define a distribution.
    """

    shape: tuple[int, int, int]
    weights: tuple[float, ...]
    means: Rows
    sds: Rows
    basis: Basis = "pixels"
    levels = 0

    def __post_init__(self) -> None:
        check_components(self.shape, self.weights, self.means, self.sds)

    def mean(self) -> Float[np.ndarray, "h w c"]:
        """Returns the mean of the first component."""
        return np.asarray(self.means[0]).reshape(self.shape)

    def variances(self) -> Float[np.ndarray, "h w c"]:
        """Returns the variances of the first component along the axes of the basis."""
        return self._sds()[0] ** 2

    def nats(self, images: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
        means, sds = self._means(), self._sds()
        scaled = (self.coordinates(images.astype(np.float64))[:, None] - means) / sds
        log_densities = -(scaled**2 / 2 + np.log(sds) + np.log(2 * np.pi) / 2).sum((2, 3, 4))
        return -np.asarray(scipy.special.logsumexp(np.log(self.weights) + log_densities, axis=1))

    def sample(self, count: int, seed: int | tuple[int, ...]) -> Float[np.ndarray, "n h w c"]:
        """Draws independent images in float32 with numpy's `default_rng(seed)`."""
        rng = np.random.default_rng(seed)
        component = draw_components(rng, self.weights, count)
        noise = rng.standard_normal((count, *self.shape))
        return self._pixels(self._means()[component] + self._sds()[component] * noise).astype(np.float32)

    def component(self, number: int) -> "GaussianMixture":
        rows = slice(number, number + 1)
        return replace(self, weights=(1.0,), means=self.means[rows], sds=self.sds[rows])

    def estimate(
        self, z: Image, gamma: Scalar, path: AbstractPath, weights: Float[Array, " components"] | None = None
    ) -> Estimate:
        """Returns the posterior mean, which is linear in z for each component, weighted by Bayes' rule.

        `weights` overrides the weights of the components and may contain zeros.
        """
        means, sds = jnp.asarray(self._means(), float), jnp.asarray(self._sds(), float)
        offset = self.coordinates(z / path.alpha(gamma)) - means
        variance = sds**2 + jnp.exp(gamma)
        log_weights = jnp.log(jnp.asarray(self.weights if weights is None else weights, float))
        log_joint = log_weights - 0.5 * (offset**2 / variance + jnp.log(variance)).sum((1, 2, 3))
        share = jax.nn.softmax(log_joint)[:, None, None, None]
        x_hat = (share * (means + sds**2 / variance * offset)).sum(0)
        eps_hat = (share * jnp.exp(gamma / 2) / variance * offset).sum(0)  # (z - alpha x_hat) / sigma
        return Estimate(self._pixels(x_hat), self._pixels(eps_hat))

    def coordinates(self, x: Values) -> Values:
        """Returns the images' coordinates in the basis."""
        return x if self.basis == "pixels" else _fft(x).dctn(x, axes=_IMAGE, norm="ortho")

    def _pixels(self, y: Values) -> Values:
        return y if self.basis == "pixels" else _fft(y).idctn(y, axes=_IMAGE, norm="ortho")

    def _means(self) -> Float[np.ndarray, "components h w c"]:
        """Returns the coordinates of the components' means in the basis."""
        return np.asarray(self.coordinates(np.asarray(self.means).reshape(-1, *self.shape)))

    def _sds(self) -> Float[np.ndarray, "components h w c"]:
        return np.asarray(self.sds).reshape(-1, *self.shape)


def _fft(x: Array | np.ndarray) -> Any:
    return jax.scipy.fft if isinstance(x, jax.Array) else scipy.fft


@dataclass(frozen=True)
class LevelMixture(AbstractDistribution):
    """A mixture of C components over levels.

    Args:
        shape: (h, w, c) of an image.
        levels: Number V of levels, from 2 to 256.
        weights: C positive numbers that sum to 1.
        means: The h w c pixels of each component's mean, in C order and in units of x in [-1, 1].
        sds: The standard deviations of the pixels, in the same order and units.

    Raises:
        RecipeError: the numbers are inconsistent or do not define a distribution.
    """

    shape: tuple[int, int, int]
    levels: int
    weights: tuple[float, ...]
    means: Rows
    sds: Rows

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise RecipeError(f"levels = {self.levels}: expected 2 to 256.")
        check_components(self.shape, self.weights, self.means, self.sds)

    def log_probs(self) -> Float[np.ndarray, "components h w c v"]:
        """Returns log P_cj(k) in float64, accurate far into the tails."""
        edges = np.concatenate([[-np.inf], 2 * np.arange(1, self.levels) / self.levels - 1, [np.inf]])
        scaled = (edges - self._by_pixel(self.means)[..., None]) / self._by_pixel(self.sds)[..., None]
        return _log_mass(scaled[..., :-1], scaled[..., 1:])

    def nats(self, images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
        index = images[:, None, ..., None].astype(int)
        of_pixels = np.take_along_axis(self.log_probs()[None], index, axis=-1)
        return -np.asarray(scipy.special.logsumexp(np.log(self.weights) + of_pixels.sum((2, 3, 4, 5)), axis=1))

    def sample(self, count: int, seed: int | tuple[int, ...]) -> UInt8[np.ndarray, "n h w c"]:
        """Draws independent images with numpy's `default_rng(seed)`, as Gaussian pixels rounded to levels."""
        rng = np.random.default_rng(seed)
        component = draw_components(rng, self.weights, count)
        noise = rng.standard_normal((count, *self.shape))
        x = self._by_pixel(self.means)[component] + self._by_pixel(self.sds)[component] * noise
        return np.clip(np.floor((x + 1) / 2 * self.levels), 0, self.levels - 1).astype(np.uint8)

    def component(self, number: int) -> "LevelMixture":
        rows = slice(number, number + 1)
        return replace(self, weights=(1.0,), means=self.means[rows], sds=self.sds[rows])

    def estimate(
        self, z: Image, gamma: Scalar, path: AbstractPath, weights: Float[Array, " components"] | None = None
    ) -> Estimate:
        return estimate_from_logits(self.posterior(z, gamma, path, weights), level_values(self.levels), z, gamma, path)

    def posterior(
        self, z: Image, gamma: Scalar, path: AbstractPath, weights: Float[Array, " components"] | None = None
    ) -> Float[Array, "h w c v"]:
        """Returns log p(x_j = level k | z) of every pixel, given the whole latent z = alpha x + sigma eps.

        `weights` overrides the weights of the components and may contain zeros.
        """
        evidence = -0.5 * jnp.exp(-gamma) * (z[..., None] / path.alpha(gamma) - level_values(self.levels)) ** 2
        # The maximum is the same for all components, so it cancels. Far from the levels its sum over the pixels can
        # reach 1e5, where float32 would lose the differences between components.
        evidence = evidence - evidence.max(-1, keepdims=True)
        joint = jnp.asarray(self.log_probs(), dtype=float) + evidence
        of_pixels = jax.nn.logsumexp(joint, axis=-1, keepdims=True)
        log_weights = jnp.asarray(np.log(self.weights), float) if weights is None else jnp.log(weights)
        of_components = log_weights + of_pixels.sum((1, 2, 3, 4))
        responsibility = jax.nn.log_softmax(of_components)[:, None, None, None, None]
        return jax.nn.logsumexp(responsibility + joint - of_pixels, axis=0)

    def _by_pixel(self, rows: Rows) -> Float[np.ndarray, "components h w c"]:
        return np.asarray(rows).reshape(-1, *self.shape)


def _log_mass(low: Float[np.ndarray, "*n"], high: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Returns log(Phi(high) - Phi(low)). Intervals above 0 are mirrored: beyond 38, log Phi is 0 in float64."""
    mirrored = low + high > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    return scipy.special.log_ndtr(high) + np.log(-np.expm1(scipy.special.log_ndtr(low) - scipy.special.log_ndtr(high)))


@register("prediction", "exact")
class Exact(AbstractPrediction):
    """The exact posterior, for data whose distribution is known; the network's output is ignored.

    The difference between a likelihood estimate and -log P is then the error of the estimator itself, which comes from
    discretisation, the ends of the schedule, and Monte Carlo noise.
    """

    distribution: AbstractDistribution = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def __call__(self, output: Float[Array, "h w c 1"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return self.distribution.estimate(z, gamma, path)


@register("prediction", "exact_given_label")
class ExactGivenLabel(AbstractPrediction):
    """The exact posterior of a mixture whose components are the labels, for use with network `label`.

    The output of network `label` is the number of the label plus 1, or 0 without a label, which gives the posterior of
    the whole mixture.
    """

    distribution: AbstractDistribution = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def __check_init__(self) -> None:
        if not isinstance(self.distribution, GaussianMixture | LevelMixture):
            raise RecipeError("prediction exact_given_label: the components are not known; use data mixture.")

    def __call__(self, output: Float[Array, "h w c 1"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        assert isinstance(self.distribution, GaussianMixture | LevelMixture), "checked"
        weights = jnp.asarray(self.distribution.weights, float)
        label = jnp.clip(jnp.round(output[0, 0, 0, 0]), 0, len(weights))  # stays NaN for a label that does not exist
        one = (jnp.arange(1, len(weights) + 1) == label).astype(float)
        return self.distribution.estimate(z, gamma, path, jnp.where(label == 0, weights, one))
