# SPDX-License-Identifier: Apache-2.0
r"""A distribution of images whose -log P is known: a mixture of components with independent, rounded Gaussian pixels.

    P(image) = sum_c w_c prod_j P_cj(level of pixel j)
    P_cj(k)  = Phi((e_{k+1} - m_cj) / s_cj) - Phi((e_k - m_cj) / s_cj)

e_k = 2k / V - 1 are the edges of V equal bins of [-1, 1], the outer two moved to infinity.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, UInt8

from vdmkit.denoiser import Estimate, estimate_from_logits
from vdmkit.distribution._distribution import AbstractDistribution, Rows, check_components, draw_components
from vdmkit.errors import RecipeError
from vdmkit.noise import AbstractPath
from vdmkit.observation import level_values
from vdmkit.typing import Image, Scalar


@dataclass(frozen=True)
class LevelMixture(AbstractDistribution):
    """A mixture of C components over levels.

    Args:
        shape: (h, w, c) of an image.
        levels: Number V of levels, from 2 to 256.
        weights: C positive numbers that sum to 1.
        means: For each component the h w c pixels in C order, in units of the data: levels lie in [-1, 1].
        sds: Standard deviations, in the same order and units.

    Raises:
        RecipeError: the numbers do not fit each other, or do not define a distribution.
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
        """Returns independent images, by numpy's `default_rng(seed)`: Gaussian pixels rounded to levels."""
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
        """Returns log p(x_j = level k | z) of every pixel, where z = alpha x + sigma eps is the whole latent.

        Other `weights` of the components may be given, also 0.
        """
        evidence = -0.5 * jnp.exp(-gamma) * (z[..., None] / path.alpha(gamma) - level_values(self.levels)) ** 2
        # The maximum is common to all components. Summed over the pixels of a latent far from the levels it may reach
        # 1e5, where float32 would round away the differences between components.
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
    """Returns log(Phi(high) - Phi(low)). Intervals right of 0 are mirrored: beyond 38, log Phi is 0 in float64."""
    mirrored = low + high > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    return scipy.special.log_ndtr(high) + np.log(-np.expm1(scipy.special.log_ndtr(low) - scipy.special.log_ndtr(high)))
