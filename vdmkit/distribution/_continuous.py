# SPDX-License-Identifier: Apache-2.0
r"""A distribution of continuous images: a mixture of Gaussians whose covariances share their eigenvectors.

    p(x) = sum_c w_c N(x; m_c, B diag(s_c^2) B^T)

B is the identity, or the cosine transform of each channel, which makes the pixels correlated.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from vdmkit.denoiser import Estimate
from vdmkit.distribution._distribution import AbstractDistribution, Rows, check_components, draw_components
from vdmkit.noise import AbstractPath
from vdmkit.typing import Image, Scalar

Basis = Literal["pixels", "cosine"]
Values = TypeVar("Values", Float[Array, "*n h w c"], Float[np.ndarray, "*n h w c"])
_IMAGE = (-3, -2)


@dataclass(frozen=True)
class GaussianMixture(AbstractDistribution):
    """A mixture of C Gaussians over continuous values.

    Args:
        shape: (h, w, c) of an image.
        weights: C positive numbers that sum to 1.
        means: For each component the h w c pixels in C order.
        sds: For each component the square roots of the covariance's eigenvalues, in the order of the basis.
        basis: The eigenvectors: pixels, or cosines.

    Raises:
        RecipeError: the numbers do not fit each other, or do not define a distribution.
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
        """Returns independent images in float32, by numpy's `default_rng(seed)`."""
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
        """Returns the posterior mean: linear in z for each component, weighted by Bayes' rule.

        Other `weights` of the components may be given, also 0.
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
        """Returns the components' means in the basis."""
        return np.asarray(self.coordinates(np.asarray(self.means).reshape(-1, *self.shape)))

    def _sds(self) -> Float[np.ndarray, "components h w c"]:
        return np.asarray(self.sds).reshape(-1, *self.shape)


def _fft(x: Array | np.ndarray) -> Any:
    return jax.scipy.fft if isinstance(x, jax.Array) else scipy.fft
